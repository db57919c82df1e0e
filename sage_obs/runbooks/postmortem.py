"""The post-mortem, drafted from the journal and nothing else. What the journal does not know is shown as a gap, never filled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sage_obs.errors import JournalError
from sage_obs.platforms.base import Release
from sage_obs.runbooks.journal import Event, EventType
from sage_obs.runbooks.progress import Progress, fold
from sage_obs.runbooks.records import Exhibit, Finding
from sage_obs.runbooks.words import finding, quantity
from sage_obs.slo.promql import recorded
from sage_obs.slo.triggers import Verdict, trigger


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the timeline: when (Unix time), what, and the journal's entry it stands on."""

    at: float
    text: str
    entry: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Times:
    """Unix times, None where the journal does not know. `mitigated` is when every instance ran the target, `verified` when all passed."""

    deployed: float | None
    detected: float
    mitigated: float | None
    verified: float | None

    def since_detection(self, at: float | None) -> float | None:
        """Seconds from detection to `at`."""
        return None if at is None else round(max(at - self.detected, 0.0), 3)

    @property
    def to_detect(self) -> float | None:
        """Seconds from the release's deployment to detection; when the first request failed is not in the journal."""
        return None if self.deployed is None else round(max(self.detected - self.deployed, 0.0), 3)


@dataclass(frozen=True, slots=True)
class PostMortem:
    """The draft. `restored` is the release that went back into service, None where none was seen to."""

    run: str
    service: str
    severity: str
    summary: str
    bad: Release | None
    restored: Release | None
    impact: tuple[str, ...]
    times: Times
    timeline: tuple[Line, ...]
    evidence: tuple[Exhibit, ...]
    gaps: tuple[str, ...]
    actions: tuple[str, ...]
    journal_head: str


def draft(events: Sequence[Event]) -> PostMortem:
    """The draft of a run from its journal. Raises JournalError for a journal without a beginning."""
    progress = fold(events)
    if progress.start is None:
        raise JournalError("The journal is empty, so there is nothing to write a post-mortem from.")
    decision, assessment = progress.decision, progress.assessment
    times = _times(events, progress)
    bad = decision.current if decision else None
    restored = decision.target if decision and times.mitigated else None
    return PostMortem(
        run=progress.run,
        service=progress.start.parameters.get("service", ""),
        severity=assessment.severity.value if assessment and assessment.severity else "not assessed",
        summary=_summary(progress, bad, restored, times),
        bad=bad,
        restored=restored,
        impact=_impact(progress),
        times=times,
        timeline=tuple(_timeline(events)),
        evidence=progress.evidence,
        gaps=tuple(_gaps(progress, times)),
        actions=tuple(_actions(progress, bad, restored)),
        journal_head=events[-1].sha256,
    )


def _times(events: Sequence[Event], progress: Progress) -> Times:
    def passed(key: str) -> float | None:
        found = (event.at for event in progress.finished.values() if key in event.data and event.data["verdict"] == Verdict.PASS)
        return next(found, None)

    decision, start = progress.decision, progress.start
    deployed = decision.current.deployed_at if decision and decision.current else None
    alerted = start.alerted_at if start else None
    detected = min(events[0].at, alerted) if alerted is not None else events[0].at
    return Times(deployed, detected, passed("converged_seconds"), passed("bake_seconds"))


def _summary(progress: Progress, bad: Release | None, restored: Release | None, times: Times) -> str:
    failing = [finding(one) for one in progress.findings if one.verdict is Verdict.FAIL]
    what = f"{'; '.join(failing) or 'No trigger failed'} while {bad.version if bad else 'an unknown release'} was in service."
    if restored is None:
        refused = progress.decision.refusals if progress.decision else ()
        why = f" because {refused[0].reason}" if refused else ""
        return f"{what} No release was seen to be restored{why}."
    back = f"{what} {restored.version} was put back by {'an automatic run' if progress.start and progress.start.automatic else 'a person'}"
    return f"{back} and all triggers passed again." if times.verified else f"{back}, but it was not verified that this ended it."


def _impact(progress: Progress) -> tuple[str, ...]:
    lines = [_measured(one) for one in progress.findings]
    assessment = progress.assessment
    if assessment:
        lines.insert(0, assessment.reason)
        facts = assessment.facts
        if facts.requests_per_second is not None:
            lines.append(f"{facts.requests_per_second:.3g} requests a second")
        lines += [f"{quantity(one.share, 'ratio')} of the failures were `{one.error_type}`" for one in facts.errors]
        lines += [f"{quantity(one.share, 'ratio')} of the calls to {one.provider} failed: `{one.error_type}`" for one in facts.providers]
    return tuple(lines)


def _measured(one: Finding) -> str:
    return f'{finding(one)} — {one.verdict}; series `{recorded(trigger(one.trigger), "value")}{{version="{one.version}"}}`'


def _timeline(events: Sequence[Event]) -> list[Line]:
    start = fold(events[:1]).start
    lines = []
    if start and start.alerted_at is not None:
        lines.append(Line(start.alerted_at, f"Alert: {', '.join(start.alerts)}", events[0].seq, events[0].sha256))
    lines += [Line(event.at, text, event.seq, event.sha256) for event in events if (text := _said(event))]
    return sorted(lines, key=lambda line: (line.at, line.entry))


def _said(event: Event) -> str:
    match event.type:
        case EventType.RUN_STARTED:
            return f"Run started by {event.data['by']}"
        case EventType.RUN_RESUMED:
            return f"Run resumed by {event.data['by']}"
        case EventType.RUN_PAUSED:
            return f"Run waits for approval: {event.data['text']}"
        case EventType.STEP_INTENT if event.data["effect"] != "none":
            return f"About to: {event.data['title']} ({' '.join(event.data['command'])})"
        case EventType.STEP_FINISHED:
            return f"{event.data['title']}: {event.data['verdict']}, {event.data['text']}"
        case _:
            return ""


def _gaps(progress: Progress, times: Times) -> list[str]:
    gaps = ["When the first request failed, and how many did in all, is not in the journal."]
    gaps += [f"Not captured: {one.name} ({one.error})" for one in progress.evidence if one.error]
    gaps += [f"Not known: {finding(one)}" for one in progress.findings if one.verdict is Verdict.UNKNOWN]
    if not progress.evidence:
        gaps.append("No evidence was captured.")
    if times.deployed is None:
        gaps.append("It is not known when the release was deployed.")
    if times.mitigated is None:
        gaps.append("No release was seen to be restored.")
    elif times.verified is None:
        gaps.append("It was not verified that all triggers pass again.")
    return gaps


def _actions(progress: Progress, bad: Release | None, restored: Release | None) -> list[str]:
    actions = ["Write down the root cause."]
    if bad and restored:
        actions += [
            f"Find out what in {bad.version} ({bad.digest}) does this; {restored.version} did not.",
            "Add the test that would have stopped it before it was deployed.",
        ]
    if progress.ending is not None:
        actions.append(f"The run ended as `{progress.ending}`: a person takes over.")
    return actions
