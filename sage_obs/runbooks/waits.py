"""Waiting for a state of the world: it is read again and again, and only what is read counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sage_obs.errors import PlatformError, UnavailableError
from sage_obs.platforms.base import Platform, PlatformState, Release
from sage_obs.runbooks.records import Finding, overall
from sage_obs.runbooks.words import finding, span
from sage_obs.runbooks.world import World
from sage_obs.slo.triggers import Verdict

_POLL = 0.25
"""Seconds between two looks at the platform."""


@dataclass(frozen=True, slots=True)
class Waited:
    """How a wait ended, in words, and what was seen last."""

    verdict: Verdict
    text: str
    findings: tuple[Finding, ...] = ()
    instances: tuple[dict[str, Any], ...] = ()


def converged_on(state: PlatformState, target: Release) -> bool:
    """Whether the platform says it has converged, on the target, and every instance runs it and is ready."""
    return (
        state.converged
        and state.desired is not None
        and state.desired.digest == target.digest
        and bool(state.instances)
        and all(one.digest == target.digest and one.ready for one in state.instances)
    )


def until_converged(world: World, target: Release, *, timeout: float) -> Waited:
    """Wait until the platform has converged on `target`, at most `timeout` seconds. A platform that cannot be read is asked again."""
    if world.platform is None:
        return Waited(Verdict.UNKNOWN, "there is no platform to ask")
    deadline, detail = world.monotonic() + timeout, ""
    while True:
        state, detail = _look(world.platform, detail)
        if state is not None and converged_on(state, target):
            return Waited(Verdict.PASS, f"every instance runs {target.version} and is ready", instances=_shown(state))
        if world.monotonic() >= deadline:
            return Waited(Verdict.FAIL, f"not converged on {target.version} within {span(timeout)}: {detail}")
        world.sleep(_POLL)


def _look(platform: Platform, detail: str) -> tuple[PlatformState | None, str]:
    try:
        state = platform.describe()
    except PlatformError as exc:
        return None, exc.message
    return state, state.detail or detail


def _shown(state: PlatformState) -> tuple[dict[str, Any], ...]:
    return tuple({"name": one.name, "version": one.version, "digest": one.digest, "pid": one.pid} for one in state.instances)


class Streak:
    """How long all triggers have passed for one release without a break. Unknown breaks it like a failure does."""

    def __init__(self) -> None:
        self._since: float | None = None

    def observe(self, verdict: Verdict, *, at: float) -> float:
        """The streak's length in seconds after one more verdict at monotonic time `at`; 0 when it is broken or has just begun."""
        if verdict is not Verdict.PASS:
            self._since = None
            return 0.0
        self._since = at if self._since is None else self._since
        return at - self._since

    def reset(self) -> None:
        """Begin anew."""
        self._since = None


def until_passing(world: World, target: Release, slugs: tuple[str, ...], *, timeout: float) -> Waited:
    """Wait until every trigger has passed for `windows.bake` seconds on end while the platform stays on `target`."""
    deadline, streak = world.monotonic() + timeout, Streak()
    while True:
        findings, trouble = _measure(world, target, slugs)
        verdict = Verdict.UNKNOWN if trouble else overall(findings)
        if streak.observe(verdict, at=world.monotonic()) >= world.windows.bake:
            return Waited(Verdict.PASS, f"all triggers passed for {span(world.windows.bake)} on {target.version}", findings)
        if world.monotonic() >= deadline:
            return Waited(_last(verdict), f"not verified within {span(timeout)}: {trouble or _why(findings)}", findings)
        world.sleep(world.windows.evaluation)


def _measure(world: World, target: Release, slugs: tuple[str, ...]) -> tuple[tuple[Finding, ...], str]:
    try:
        state = world.describe()
        if state is None or not converged_on(state, target):
            return (), f"the platform no longer runs {target.version}: {state.detail if state else 'it cannot say what it runs'}"
        return world.measure(slugs, (target.version,)), ""
    except (UnavailableError, PlatformError) as exc:
        return (), exc.message


def _last(verdict: Verdict) -> Verdict:
    """A wait that ends while all passes, but not for long enough, has shown nothing."""
    return Verdict.FAIL if verdict is Verdict.FAIL else Verdict.UNKNOWN


def _why(findings: tuple[Finding, ...]) -> str:
    wanting = [finding(one) for one in findings if one.verdict is not Verdict.PASS]
    return "; ".join(wanting) or "the triggers did not pass for long enough"
