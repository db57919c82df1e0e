"""Where a run stands: the fold of its journal, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sage_obs.runbooks.journal import Event, EventType, interpreting
from sage_obs.runbooks.model import Outcome
from sage_obs.runbooks.records import Assessment, Decision, Exhibit, Finding


@dataclass(frozen=True, slots=True)
class Start:
    """What a run was started with. `alerted_at` is when the alert says it began (Unix time), None where a person started the run."""

    runbook: str
    parameters: Mapping[str, str]
    automatic: bool
    profile: str
    by: str
    alert_key: str = ""
    alerts: tuple[str, ...] = ()
    alerted_at: float | None = None

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Start:
        """From the journal."""
        start = cls(**{**data, "alerts": tuple(data["alerts"])})
        if not isinstance(start.runbook, str) or not all(isinstance(value, str) for value in {**start.parameters}.values()):
            raise TypeError("a run starts with a runbook's name and parameters")
        return start


@dataclass(frozen=True, slots=True)
class Progress:
    """A run so far. `intended` and `finished` hold the last such event of each step."""

    run: str = ""
    start: Start | None = None
    intended: Mapping[str, Event] = field(default_factory=dict)
    finished: Mapping[str, Event] = field(default_factory=dict)
    ending: Outcome | None = None
    outcome: Outcome | None = None
    waiting: bool = False

    def found(self, key: str) -> Any:
        """What the last step that finished with this key in its data put there, None if none did."""
        return next((event.data[key] for event in reversed(tuple(self.finished.values())) if key in event.data), None)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the last check found, () before the first."""
        with interpreting("The journal"):
            return tuple(Finding.read(one) for one in self.found("findings") or ())

    @property
    def assessment(self) -> Assessment | None:
        """What the assessment found, None before it."""
        with interpreting("The journal"):
            data = self.found("assessment")
            return Assessment.read(data) if data else None

    @property
    def decision(self) -> Decision | None:
        """What was decided, None before it."""
        with interpreting("The journal"):
            data = self.found("decision")
            return Decision.read(data) if data else None

    @property
    def evidence(self) -> tuple[Exhibit, ...]:
        """What was captured, () before."""
        with interpreting("The journal"):
            return tuple(Exhibit.read(one) for one in self.found("evidence") or ())


def fold(events: Iterable[Event]) -> Progress:
    """The state that these events lead to. Raises JournalError for events that no run writes."""
    progress = Progress()
    with interpreting("The journal"):
        for event in events:
            progress = advance(progress, event)
    return progress


def advance(progress: Progress, event: Event) -> Progress:
    """The state after one more event."""
    match event.type:
        case EventType.RUN_STARTED:
            return Progress(run=event.run, start=Start.read(event.data))
        case EventType.RUN_RESUMED:
            return _resumed(progress)
        case EventType.RUN_PAUSED:
            return replace(progress, waiting=True)
        case EventType.RUN_FINISHED:
            return replace(progress, outcome=Outcome(event.data["outcome"]))
        case EventType.STEP_INTENT:
            return replace(progress, intended={**progress.intended, event.step: event})
        case EventType.STEP_FINISHED:
            ends = event.data.get("ends")
            finished = {**progress.finished, event.step: event}
            return replace(progress, finished=finished, ending=Outcome(ends) if ends else progress.ending)


def _resumed(progress: Progress) -> Progress:
    """A run that waited looks again before it acts: what it read then may no longer be so."""
    return replace(progress, waiting=False, intended={}, finished={}, ending=None) if progress.waiting else progress
