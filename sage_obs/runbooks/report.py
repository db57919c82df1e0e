"""What people are shown: one line per event, and the plan of a dry run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from sage_obs.platforms.base import Release
from sage_obs.runbooks.journal import Event, EventType
from sage_obs.runbooks.model import Effect, Outcome
from sage_obs.runbooks.progress import Progress
from sage_obs.runbooks.records import Decision, overall
from sage_obs.runbooks.words import clock, finding, quantity
from sage_obs.slo.triggers import Verdict

_ENDS = {
    Outcome.OK: "done",
    Outcome.FAILED: "failed",
    Outcome.REFUSED: "refused: nothing was changed",
    Outcome.WAITING_FOR_APPROVAL: "waits for approval",
    Outcome.VERIFICATION_FAILED: "NOT VERIFIED: a person must take over; nothing more is changed by itself",
    Outcome.INCONCLUSIVE: "inconclusive: too little is known to say that it is healthy",
}


def line(event: Event) -> str:
    """One event as one line; "" for one that people need not see."""
    match event.type:
        case EventType.RUN_STARTED:
            return f"run {event.run}: {event.data['runbook']}, profile {event.data['profile']}, by {event.data['by']}"
        case EventType.RUN_RESUMED:
            return f"run {event.run}: resumed by {event.data['by']}"
        case EventType.RUN_PAUSED:
            return f"{event.step:<20} waits    {event.data['text']}: `sage-obs runbook resume {event.run} --yes` approves it"
        case EventType.RUN_FINISHED:
            return f"run {event.run}: {_ENDS[Outcome(event.data['outcome'])]}"
        case EventType.STEP_INTENT:
            changes = event.data["effect"] != Effect.NONE
            return f"{event.step:<20} doing    {shlex.join(event.data['command'])}" if changes else ""
        case EventType.STEP_FINISHED:
            return f"{event.step:<20} {event.data['verdict']:<8} {event.data['text']}"


def plan(progress: Progress, *, source: str) -> Iterator[str]:
    """The plan of a dry run, line by line; `source` says where the numbers come from."""
    yield f"Measured by {source}"
    yield from _triggers(progress)
    if progress.assessment:
        level = progress.assessment.severity
        yield f"Severity: {level or 'none'} — {progress.assessment.reason}"
        yield from _facts(progress)
    if progress.decision:
        yield from decision(progress.decision)
    yield f"Verdict: {_verdict(progress)}"


def _triggers(progress: Progress) -> Iterator[str]:
    yield "Triggers:"
    if not progress.findings:
        yield "  unknown  no release of the service is seen"
    for one in progress.findings:
        yield f"  {one.verdict:<8} {one.version}  {finding(one)}"


def _facts(progress: Progress) -> Iterator[str]:
    if progress.assessment is None:
        return
    facts = progress.assessment.facts
    if facts.requests_per_second is not None:
        yield f"Traffic: {facts.requests_per_second:.3g} requests/s"
    if facts.errors:
        yield "Failures: " + ", ".join(f"{quantity(one.share, 'ratio')} {one.error_type}" for one in facts.errors)
    for one in facts.providers:
        yield f"Provider {one.provider}: {quantity(one.share, 'ratio')} of its calls fail ({one.error_type})"
    yield f"The release as the cause: {progress.assessment.attribution.verdict} — {progress.assessment.attribution.reason}"


def decision(found: Decision) -> Iterator[str]:
    """Where a rollback would go from and to, the command, and what every rail says."""
    yield f"Current release: {_release(found.current)}"
    yield f"Would go back to: {_release(found.target)}" + (f" — {found.reason}" if found.reason else "")
    if found.command:
        yield f"Command: {shlex.join(found.command)}"
    yield "Safety rails:"
    for rail in found.rails:
        says = {Verdict.PASS: "allows", Verdict.FAIL: "REFUSES", Verdict.UNKNOWN: "unknown"}[rail.verdict]
        yield f"  {says:<8} {rail.name}: {rail.reason}"


def _release(release: Release | None) -> str:
    if release is None:
        return "not known"
    since = f", since {clock(release.deployed_at)}" if release.deployed_at is not None else ""
    return f"{release.version} ({release.digest[:19]}){since}"


def _verdict(progress: Progress) -> str:
    if progress.decision is not None:
        refusals = progress.decision.refusals
        return f"refused by: {', '.join(rail.name for rail in refusals)}" if refusals else "would roll back after approval (--yes)"
    overall_verdict = overall(progress.findings)
    if progress.ending is Outcome.FAILED:
        return "failed: " + next((str(event.data["text"]) for event in reversed(tuple(progress.finished.values()))), "")
    if overall_verdict is Verdict.PASS:
        return "healthy: nothing to do"
    return "unknown: there is too little data to say, which is not the same as healthy"
