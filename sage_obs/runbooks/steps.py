"""What each kind of step does. A handler reads the world and the run so far, and says what it found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from sage_obs.errors import JournalError, PlatformError, SageObsError, UnavailableError
from sage_obs.platforms.base import Release
from sage_obs.platforms.ledger import Standing
from sage_obs.runbooks import rails, waits
from sage_obs.runbooks.assess import severity
from sage_obs.runbooks.attribution import attribute
from sage_obs.runbooks.evidence import FOLDER, capture
from sage_obs.runbooks.model import Kind, Limits, Outcome, Step
from sage_obs.runbooks.progress import Progress
from sage_obs.runbooks.records import Assessment, Attribution, Decision, Finding, overall
from sage_obs.runbooks.target import Choice, choose
from sage_obs.runbooks.words import finding
from sage_obs.runbooks.world import StoppedError, World
from sage_obs.signals.base import NO_FACTS
from sage_obs.slo.triggers import Verdict


@dataclass(frozen=True, slots=True)
class Result:
    """A step's verdict and a sentence about it; `found` goes into the journal with them; `ends` overrides where the run goes next."""

    verdict: Verdict
    text: str
    found: Mapping[str, Any] = field(default_factory=dict)
    ends: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """What a handler is given: the outside, the run so far, the step, the runbook's limits and the run's folder (None in a dry run)."""

    world: World
    progress: Progress
    step: Step
    limits: Limits
    folder: Path | None

    @property
    def by(self) -> str:
        """Who the platform and the ledger are told it was."""
        return f"run {self.progress.run}"

    @property
    def way(self) -> tuple[Decision, Release, Release]:
        """What was decided, the release to leave and the one to go back to. Raises PlatformError where nothing was decided."""
        decision = self.progress.decision
        if decision is None or decision.target is None or decision.current is None:
            raise PlatformError(f"Step {self.step.id} has no release to go back to.", hint="A `release.target` step must come first.")
        return decision, decision.current, decision.target

    @property
    def target(self) -> Release:
        """The release to go back to."""
        return self.way[2]

    def where(self) -> Path:
        """The run's folder."""
        if self.folder is None:
            raise JournalError("A dry run keeps no files.")
        return self.folder


def check(now: Situation) -> Result:
    """Measure the step's triggers for what the platform wants, or for everything that is seen where that is not known."""
    described = now.world.describe()
    versions = (described.desired.version,) if described and described.desired else now.world.signals.versions()
    findings = now.world.measure(now.step.triggers, versions)
    verdict = overall(findings)
    return Result(verdict, _summary(findings, verdict), {"findings": [asdict(one) for one in findings]})


def _summary(findings: tuple[Finding, ...], verdict: Verdict) -> str:
    if not findings:
        return "no release of the service is seen"
    return "; ".join(finding(one) for one in findings if one.verdict is verdict)


def assess(now: Situation) -> Result:
    """Severity, traffic and failures, and whether the release can be the cause."""
    level, reason = severity(now.progress.findings)
    assessment = Assessment(level, reason, _facts(now), _attribution(now))
    text = f"{level or 'no severity'}: {reason}; the release as the cause: {assessment.attribution.reason}"
    return Result(Verdict.PASS, text, {"assessment": asdict(assessment)})


def _facts(now: Situation) -> Any:
    try:
        return now.world.signals.facts()
    except UnavailableError:
        return NO_FACTS


def _attribution(now: Situation) -> Attribution:
    described = now.world.describe()
    return attribute(now.world, described.desired if described else None, now.progress.findings)


def decide(now: Situation) -> Result:
    """Choose the target and ask every rail."""
    world, progress = now.world, now.progress
    described = world.describe()
    current = described.desired if described else None
    choice = _choice(now, current)
    facts = rails.Facts(
        automatic=bool(progress.start and progress.start.automatic),
        automation=world.automation,
        now=world.clock(),
        novelty=world.windows.novelty,
        rate=world.windows.rate,
        triggers=overall(progress.findings),
        state=described,
        choice=choice,
        attribution=_attribution(now),
        recent=world.recent(),
        allowances=now.limits.automatic,
        halted=(world.state / rails.OFF_FILE).exists(),
    )
    return _decided(world, facts)


def _choice(now: Situation, current: Release | None) -> Choice | None:
    if now.world.platform is None or now.world.ledger is None or current is None or now.progress.start is None:
        return None
    return choose(now.world.platform, now.world.ledger, current=current, to=now.progress.start.parameters["to"])


def _decided(world: World, facts: rails.Facts) -> Result:
    target = facts.target
    command = world.platform.command(target) if world.platform and target else ()
    decision = Decision(facts.current, target, facts.choice.reason if facts.choice else "", command, rails.ask(facts))
    found = {"decision": asdict(decision)}
    if decision.refusals or facts.current is None or target is None:
        refusals = "; ".join(f"{rail.name}: {rail.reason}" for rail in decision.refusals)
        return Result(Verdict.FAIL, f"refused: {refusals}", found, ends=Outcome.REFUSED)
    return Result(Verdict.PASS, f"go back from {facts.current.version} to {target.version}: {decision.reason}", found)


def approve(now: Situation) -> Result:
    """Automatic runs are approved by the rails, others by a person. Nobody to ask leaves the run waiting."""
    if now.progress.start is not None and now.progress.start.automatic:
        return Result(Verdict.PASS, "approved by the safety rails", {"approved_by": "rails"})
    answer = now.world.approve(now.way[0])
    if answer is None:
        return Result(Verdict.UNKNOWN, "nobody to ask", ends=Outcome.WAITING_FOR_APPROVAL)
    if not answer:
        return Result(Verdict.FAIL, "declined", ends=Outcome.REFUSED)
    return Result(Verdict.PASS, "approved", {"approved_by": "person"})


def evidence(now: Situation) -> Result:
    """Capture what the action will destroy. What cannot be had is recorded and never stops the run."""
    began = time.monotonic()
    try:
        exhibits = capture(now.world, now.step.triggers, now.where() / FOLDER, budget=now.world.windows.evidence)
    except (OSError, PlatformError) as exc:
        return Result(Verdict.UNKNOWN, f"no evidence could be captured: {exc}", {"evidence": []})
    missing = [one.name for one in exhibits if one.error]
    text = f"{len(exhibits) - len(missing)} of {len(exhibits)} items in {time.monotonic() - began:.1f} s"
    text += f"; missing: {', '.join(missing)}" if missing else ""
    verdict = Verdict.UNKNOWN if missing else Verdict.PASS
    return Result(verdict, text, {"evidence": [asdict(one) for one in exhibits]})


def intent(now: Situation) -> Mapping[str, Any]:
    """What is written down before a step: for an action also from where to where, and the command a person would type."""
    about = {"kind": now.step.kind.value, "title": now.step.title, "effect": now.step.effect.value}
    if now.step.kind is not Kind.ACTION:
        return about
    decision, current, target = now.way
    return {**about, "from": asdict(current), "to": asdict(target), "command": list(decision.command)}


def at_target(now: Situation) -> bool:
    """The probe of `platform.rollback`: the platform already wants the target."""
    described = now.world.describe()
    return bool(described and described.desired and described.desired.digest == now.target.digest)


def roll_back(now: Situation) -> Result:
    """Ask the platform for the target, once; whether it took it is read back. The probe makes asking again harmless."""
    if at_target(now):
        return Result(Verdict.PASS, f"the platform already wants {now.target.version}: adopted", {"adopted": True})
    described = now.world.describe()
    wanted = described.desired if described else None
    if wanted is None or wanted.digest != now.way[1].digest:
        found = wanted.version if wanted else "nothing"
        return Result(Verdict.FAIL, f"somebody else made {found} the desired release meanwhile", ends=Outcome.FAILED)
    if now.world.platform is None:
        raise PlatformError("There is no platform to roll back on.")
    now.world.platform.roll_back(now.target, by=now.by)
    if not at_target(now):
        return Result(Verdict.FAIL, f"the platform was asked for {now.target.version} but does not want it", ends=Outcome.FAILED)
    return Result(Verdict.PASS, f"the platform wants {now.target.version}", {"adopted": False})


def converge(now: Situation) -> Result:
    """Wait until every instance runs the target and is ready."""
    began = now.world.monotonic()
    waited = waits.until_converged(now.world, now.target, timeout=now.step.timeout)
    took = round(now.world.monotonic() - began, 3)
    return Result(waited.verdict, waited.text, {"converged_seconds": took, "instances": list(waited.instances)})


def bake(now: Situation) -> Result:
    """Wait until all triggers pass for the target without a break."""
    waited = waits.until_passing(now.world, now.target, now.step.triggers, timeout=now.step.timeout)
    found = {"after": [asdict(one) for one in waited.findings], "bake_seconds": now.world.windows.bake}
    return Result(waited.verdict, waited.text, found)


def mark(now: Situation) -> Result:
    """Write into the ledger what is known now. Marking again is harmless."""
    if now.world.ledger is None:
        raise PlatformError("There is no ledger to write to.")
    _, bad, target = now.way
    failing = "; ".join(finding(one) for one in now.progress.findings if one.verdict is Verdict.FAIL)
    judgements = [(bad, Standing.BAD, failing or "a person rolled it back")]
    if now.progress.ending is None:
        judgements.append((target, Standing.GOOD, f"all triggers passed again after {bad.version} was rolled back"))
    for release, standing, reason in judgements:
        now.world.ledger.mark(release, standing, by=now.by, reason=reason)
    marks = [{"version": release.version, "digest": release.digest, "standing": standing.value} for release, standing, _ in judgements]
    return Result(Verdict.PASS, ", ".join(f"{one['version']} is {one['standing']}" for one in marks), {"marks": marks})


Handler = Callable[[Situation], Result]
HANDLERS: Final[dict[tuple[Kind, str], Handler]] = {
    (Kind.CHECK, ""): check,
    (Kind.DECIDE, "severity"): assess,
    (Kind.DECIDE, "release.target"): decide,
    (Kind.APPROVE, ""): approve,
    (Kind.EVIDENCE, ""): evidence,
    (Kind.ACTION, "platform.rollback"): roll_back,
    (Kind.WAIT, "platform.converged"): converge,
    (Kind.WAIT, "triggers.pass"): bake,
    (Kind.RECORD, "ledger"): mark,
}
"""What a step does, by its kind and what it uses."""


def attempt(handler: Handler, now: Situation) -> Result:
    """Run a handler; an error that people can act on becomes a failed step, whose words say what to do."""
    try:
        return handler(now)
    except (StoppedError, JournalError):
        raise
    except SageObsError as exc:
        return Result(Verdict.FAIL, str(exc), ends=Outcome.FAILED)
    except OSError as exc:
        return Result(Verdict.FAIL, f"{exc.strerror or exc}: {exc.filename or now.step.title}", ends=Outcome.FAILED)
