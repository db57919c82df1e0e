"""The safety rails: pure functions over facts. Each gives a reason, whether it refuses or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sage_obs.platforms.base import PlatformState, Release
from sage_obs.platforms.ledger import Standing
from sage_obs.runbooks.model import Allowance
from sage_obs.runbooks.records import Attribution, Rail
from sage_obs.runbooks.target import Choice
from sage_obs.runbooks.words import span
from sage_obs.slo.triggers import Verdict

KILL_SWITCH: Final = "SAGE_OBS_AUTOMATION"
"""Set to `off`, this environment variable stops every automatic run before it changes anything."""
OFF_FILE: Final = "automation.off"
"""So does a file of this name in the state folder, which is looked for anew by every run: nothing has to be started again."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rails judge. Times are Unix times, `novelty` and `rate` seconds; `recent` are earlier automatic rollbacks.

    `automation` is the kill switch's value, `halted` whether the state folder has a file that is one too.
    """

    automatic: bool
    automation: str
    now: float
    novelty: float
    rate: float
    triggers: Verdict
    state: PlatformState | None
    choice: Choice | None
    attribution: Attribution
    recent: tuple[float, ...]
    allowances: tuple[Allowance, ...]
    halted: bool = False

    @property
    def current(self) -> Release | None:
        """The release the platform wants now."""
        return self.state.desired if self.state else None

    @property
    def target(self) -> Release | None:
        """The release to go back to."""
        return self.choice.target if self.choice else None


def _refuse_if(condition: bool, refusal: str, otherwise: str) -> tuple[Verdict, str]:  # noqa: FBT001 - reads as a sentence
    return (Verdict.FAIL, refusal) if condition else (Verdict.PASS, otherwise)


def kill_switch(facts: Facts) -> tuple[Verdict, str]:
    """Automatic runs change nothing while the switch is off."""
    if not facts.automatic:
        return Verdict.PASS, "a person runs this"
    if facts.halted:
        return Verdict.FAIL, f"the state folder has a file {OFF_FILE}"
    off = facts.automation.strip().lower() in ("off", "0", "false", "no")
    return _refuse_if(off, f"{KILL_SWITCH} is off", f"{KILL_SWITCH} is not off")


def confirmed(facts: Facts) -> tuple[Verdict, str]:
    """A trigger fails now; a person may know more, an automatic run does not."""
    if facts.triggers is Verdict.FAIL:
        return Verdict.PASS, "a trigger fails now"
    if facts.automatic:
        return Verdict.FAIL, "no trigger fails now, so nothing calls for a rollback"
    return Verdict.UNKNOWN, "no trigger fails now: only you call for a rollback"


def flap_guard(facts: Facts) -> tuple[Verdict, str]:
    """Automatic rollbacks are rationed, so that two bad releases do not take turns."""
    if not facts.automatic:
        return Verdict.PASS, "a person runs this"
    for allowance in facts.allowances:
        used = sum(1 for at in facts.recent if facts.now - at < allowance.seconds)
        if used >= allowance.runs:
            return Verdict.FAIL, f"{used} automatic rollback(s) within {span(allowance.seconds)}; {allowance.runs} are allowed"
    return Verdict.PASS, "no automatic rollback too many"


def known_platform(facts: Facts) -> tuple[Verdict, str]:
    """It is known what the service runs on."""
    return _refuse_if(
        facts.current is None, "the platform is unknown, or nothing was ever deployed on it", "the platform says what it runs"
    )


def settled(facts: Facts) -> tuple[Verdict, str]:
    """No rollout is in progress."""
    if facts.state is None:
        return Verdict.UNKNOWN, "the platform is unknown"
    return _refuse_if(facts.state.in_progress, f"a rollout is in progress: {facts.state.detail}", "no rollout is in progress")


def proven_target(facts: Facts) -> tuple[Verdict, str]:
    """The target exists, is intact and was proven good."""
    choice = facts.choice
    if choice is None:
        return Verdict.UNKNOWN, "the platform is unknown"
    damaged = "".join(f" {text}" for text in choice.damaged)
    if choice.target is None:
        return Verdict.FAIL, f"{choice.reason}.{damaged}".rstrip(".")
    if choice.standing is not Standing.GOOD:
        known = "known to be bad" if choice.standing is Standing.BAD else "not proven good"
        return Verdict.FAIL, f"{choice.target.version} is {known} (`sage-obs release mark-good {choice.target.version}` if you know better)"
    return Verdict.PASS, f"{choice.reason}.{damaged}".rstrip(".")


def elsewhere(facts: Facts) -> tuple[Verdict, str]:
    """The target is not what already runs."""
    if facts.current is None or facts.target is None:
        return Verdict.UNKNOWN, "there is no target"
    same = facts.target.digest == facts.current.digest
    return _refuse_if(same, f"{facts.target.version} is what the platform already wants", "the target is another release")


def recent_release(facts: Facts) -> tuple[Verdict, str]:
    """A release came lately enough to be the cause. A failure shows up to one rate window after it began."""
    if facts.current is None or facts.current.deployed_at is None:
        return Verdict.UNKNOWN, "it is not known when the current release was deployed"
    age = facts.now - facts.current.deployed_at
    came = f"{facts.current.version} was deployed {span(max(age, 0.0))} ago"
    return _refuse_if(
        age > facts.novelty + facts.rate, f"{came}, which is too long to be the cause (over {span(facts.novelty + facts.rate)})", came
    )


def attributed(facts: Facts) -> tuple[Verdict, str]:
    """Nothing else provably is the cause."""
    return facts.attribution.verdict, facts.attribution.reason


RAILS: Final[dict[str, Callable[[Facts], tuple[Verdict, str]]]] = {
    "kill switch": kill_switch,
    "confirmed": confirmed,
    "flap guard": flap_guard,
    "known platform": known_platform,
    "settled platform": settled,
    "proven target": proven_target,
    "another release": elsewhere,
    "recent release": recent_release,
    "attribution": attributed,
}
"""Every rail, in the order people are shown them."""


def ask(facts: Facts) -> tuple[Rail, ...]:
    """What every rail says."""
    return tuple(Rail(name, *rail(facts)) for name, rail in RAILS.items())
