"""Run a drill: break a stack of its own on purpose and score how long it takes to be well again.

What is believed about customers comes from the traffic generator, what was done from the run's journal, and what runs from the
platform; none of it from the drill itself.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sage_obs.conventions import SERVICE
from sage_obs.errors import JournalError, SageObsError
from sage_obs.platforms.ledger import Standing
from sage_obs.platforms.local import releases
from sage_obs.platforms.select import open_ledger, platform_root
from sage_obs.runbooks.journal import EventType, read, verify
from sage_obs.runbooks.model import Outcome
from sage_obs.slo.triggers import ERROR_RATE
from sage_obs.slo.windows import DRILL, Windows
from sage_obs.stack.drills import BAD_VERSION, GOOD_VERSION, Drill
from sage_obs.stack.timeline import Moments, events, moments, runs
from sage_obs.stack.traffic import Second, read_account
from sage_obs.stack.up import AGENT_COMMAND, Options, Stack

LIMIT_SECONDS: Final = 60.0
"""The promise: from the first bad response to a verified rollback in under a minute."""
_SETTLE: Final = 3
"""How many whole seconds of traffic after verification the error rate is judged by."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must be true at the end, whether it is, and what was seen."""

    name: str
    passed: bool
    seen: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A line of the timeline: seconds since the first bad response, and what happened."""

    seconds: float
    what: str


@dataclass(frozen=True, slots=True)
class Result:
    """How a drill went. Seconds count from the first bad response and are None for what never happened."""

    drill: str
    passed: bool
    detected_seconds: float | None
    mitigated_seconds: float | None
    verified_seconds: float | None
    timeline: tuple[Mark, ...]
    checks: tuple[Check, ...]
    run: str
    postmortem: str


@dataclass(slots=True)
class Course:
    """What is known while the drill goes on. Times are Unix times."""

    deployed_at: float = 0.0
    first_bad: float | None = None
    run: Path | None = None
    killed_at: float | None = None
    trouble: str = ""
    moments: Moments = field(default_factory=Moments)


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What is seen once the run has ended.

    The versions that still run, whether the platform has converged, the last seconds of traffic, how many messages had to be sent
    twice in all, and how each run of a runbook ended.
    """

    running: tuple[str, ...]
    converged: bool
    account: tuple[Second, ...]
    retried: int
    runs: tuple[str, ...]


def conduct(drill: Drill, options: Options, *, say: Callable[[str], None], check: Callable[[], None] = lambda: None) -> Result:
    """Start a stack, prove the good release, deploy the bad one, wait for the rollback, score it, stop the stack.

    Raises UnavailableError where the stack cannot be started or the good release cannot be proven good, and what `check` raises.
    """
    with Stack(options, say=say, check=check) as stack:
        _prove_good(stack, say=say)
        course = Course(deployed_at=time.time())
        _deploy_bad(stack, drill)
        say(f"{BAD_VERSION} is deployed: {drill.title}")
        try:
            _watch(stack, drill, course, say=say)
        except SageObsError as exc:
            course.trouble = exc.message
        return _score(stack, drill, course)


def options_for(state: Path, *, tools: Path, windows: Windows = DRILL) -> Options:
    """A stack of the drill's own: any free ports, fast windows, a responder that is started again when it dies."""
    return Options(state=state, windows=windows, policy="any", version=GOOD_VERSION, restart_responder=True, tools=tools, degraded=False)


def _prove_good(stack: Stack, *, say: Callable[[str], None]) -> None:
    """Wait until the good release has baked and is older than the rules' idea of new."""
    windows = stack.options.windows
    ready_at = time.monotonic() + windows.novelty + 5 * windows.evaluation
    say(f"{GOOD_VERSION} serves; proving it good takes about {windows.novelty:g} s")
    ledger, good = open_ledger(stack.state, service=SERVICE), stack.platform.release(GOOD_VERSION)
    stack.wait(
        lambda: time.monotonic() >= ready_at and ledger.standing(good.digest) is Standing.GOOD,
        what=f"the responder to call {GOOD_VERSION} good",
        timeout=windows.novelty + windows.rate + 6 * windows.bake,
    )


def _deploy_bad(stack: Stack, drill: Drill) -> None:
    releases.create(platform_root(stack.state, SERVICE), BAD_VERSION, command=AGENT_COMMAND, files={"config.yaml": drill.config})
    stack.platform.deploy(stack.platform.release(BAD_VERSION), by="sage-obs drill")


def _watch(stack: Stack, drill: Drill, course: Course, *, say: Callable[[str], None]) -> None:
    """Follow the run until it has ended and a little traffic has been seen after it."""
    before = set(runs(stack.state))

    def over() -> bool:
        _look(stack, course, before, say=say)
        if drill.kill_responder and course.killed_at is None and course.moments.asked is not None:
            os.kill(stack.pid("responder"), signal.SIGKILL)
            course.killed_at = time.time()
            say("the responder was killed with -9")
        return course.moments.finished is not None

    stack.wait(over, what="the run to end", timeout=3 * LIMIT_SECONDS)
    seconds = len(read_account(stack.layout.account)) + _SETTLE + 1
    stack.wait(lambda: len(read_account(stack.layout.account)) >= seconds, what="traffic after the run")


def _look(stack: Stack, course: Course, before: set[Path], *, say: Callable[[str], None]) -> None:
    """Take in what is new: the first bad response, the run, its moments."""
    if course.first_bad is None:
        course.first_bad = _first_bad(read_account(stack.layout.account), course.deployed_at)
        if course.first_bad is not None:
            say("the first bad response has been sent")
    if course.run is None:
        course.run = next((folder for folder in runs(stack.state) if folder not in before), None)
        if course.run is not None:
            say(f"Alertmanager called, the responder started {course.run.name}")
    if course.run is not None:
        course.moments = moments(events(course.run))


def _first_bad(account: list[Second], since: float) -> float | None:
    return next((second.first_bad for second in account if second.first_bad >= since and second.bad), None)


def _score(stack: Stack, drill: Drill, course: Course) -> Result:
    since = _clock(course.first_bad)
    described = stack.platform.describe()
    aftermath = Aftermath(
        running=tuple(one.version for one in described.instances),
        converged=described.converged,
        account=tuple(read_account(stack.layout.account)[-_SETTLE:]),
        retried=sum(second.retried for second in read_account(stack.layout.account)),
        runs=tuple(_outcome(folder) for folder in runs(stack.state)),
    )
    checks = tuple(judge(drill, course, aftermath))
    return Result(
        drill=drill.name,
        passed=all(check.passed for check in checks),
        detected_seconds=since(course.moments.started),
        mitigated_seconds=since(course.moments.converged),
        verified_seconds=since(course.moments.verified),
        timeline=tuple(_timeline(course)),
        checks=checks,
        run=str(course.run or ""),
        postmortem=str(course.run / "postmortem.md") if course.run else "",
    )


def _outcome(folder: Path) -> str:
    ended = (event.data.get("outcome") for event in events(folder) if event.type is EventType.RUN_FINISHED)
    return str(next(ended, "unfinished"))


def _clock(zero: float | None) -> Callable[[float | None], float | None]:
    return lambda at: None if zero is None or at is None else round(at - zero, 2)


def _timeline(course: Course) -> Iterator[Mark]:
    found = (
        (course.first_bad, "first bad response"),
        (course.moments.started, "detected: Alertmanager has called, the run starts"),
        (course.moments.asked, "evidence captured, rollback asked for"),
        (course.killed_at, "responder killed with -9"),
        (course.moments.converged, "mitigated: every instance runs the good release"),
        (course.moments.verified, "verified: all triggers pass without a break"),
        (course.moments.finished, "post-mortem drafted"),
    )
    zero = course.first_bad
    if zero is not None:
        yield from (Mark(round(at - zero, 2), what) for at, what in sorted((at, what) for at, what in found if at is not None))


def judge(drill: Drill, course: Course, after: Aftermath) -> Iterator[Check]:
    """Everything that must be true at the end of a drill."""
    yield Check("the drill ran to its end", not course.trouble, course.trouble or "yes")
    running = ", ".join(after.running) or "nothing"
    yield Check("the bad release is gone", after.converged and after.running == (GOOD_VERSION,), f"{running} runs")
    yield _error_rate_is_back(after)
    ended = ", ".join(after.runs) or "none"
    yield Check("one run, which ended well", after.runs == (Outcome.OK.value,), ended)
    if drill.kill_responder:
        yield _killed_in_the_middle(course)
    yield _journal_is_intact(course.run)
    yield _postmortem_names(course.run)
    verified = _clock(course.first_bad)(course.moments.verified)
    in_time = verified is not None and verified < LIMIT_SECONDS
    yield Check(f"verified in under {LIMIT_SECONDS:g} s", in_time, "never" if verified is None else f"{verified:.1f} s")


def _killed_in_the_middle(course: Course) -> Check:
    asked, killed, converged = course.moments.asked, course.killed_at, course.moments.converged
    known = asked is not None and killed is not None and converged is not None
    passed = known and asked <= killed < converged  # type: ignore[operator]
    return Check(
        "the responder was killed in the middle of the rollback", passed, "between asking and converging" if passed else "it was not"
    )


def _error_rate_is_back(after: Aftermath) -> Check:
    sent, bad = sum(second.sent for second in after.account), sum(second.bad for second in after.account)
    share = bad / sent if sent else 1.0
    seen = f"{bad} of the last {sent} requests failed" + (f", {after.retried} were sent twice at a switch" if after.retried else "")
    return Check("the error rate is back", len(after.account) == _SETTLE and sent > 0 and share <= ERROR_RATE.threshold, seen)


def _journal_is_intact(run: Path | None) -> Check:
    name = "the journal is intact"
    if run is None:
        return Check(name, passed=False, seen="there was no run")
    try:
        found = read(run)
        verify(found, source=str(run))
    except JournalError as exc:
        return Check(name, passed=False, seen=exc.message)
    return Check(name, passed=bool(found), seen=f"{len(found)} chained lines")


def _postmortem_names(run: Path | None) -> Check:
    name = "the post-mortem names the right release"
    try:
        data = json.loads(((run or Path()) / "postmortem.json").read_text())
        text = ((run or Path()) / "postmortem.md").read_text()
    except (OSError, ValueError) as exc:
        return Check(name, passed=False, seen=f"it cannot be read ({type(exc).__name__})")
    bad, good = data.get("bad_release"), data.get("good_release")
    named = bad == BAD_VERSION and good == GOOD_VERSION and BAD_VERSION in text and GOOD_VERSION in text
    return Check(name, passed=named, seen=f"from {bad} back to {good}")
