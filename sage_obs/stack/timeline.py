"""What a run's journal says happened when: the moments a drill is scored by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sage_obs.errors import JournalError
from sage_obs.runbooks.journal import Event, EventType, read

_ASKED = "undo"
_CONVERGED = "converge"
_VERIFIED = "bake"


@dataclass(frozen=True, slots=True)
class Moments:
    """Unix times, None for what has not happened: the run's start, the request to roll back, converged, verified, the end."""

    started: float | None = None
    asked: float | None = None
    converged: float | None = None
    verified: float | None = None
    finished: float | None = None


def runs(state: Path) -> tuple[Path, ...]:
    """The folders of all runs under a state folder, oldest first."""
    return tuple(sorted((path for path in (state / "runs").glob("*") if path.is_dir()), key=lambda path: path.name))


def events(folder: Path) -> tuple[Event, ...]:
    """A run's events so far; () while its journal is not readable yet."""
    try:
        return read(folder)
    except JournalError:
        return ()


def moments(journal: Sequence[Event]) -> Moments:
    """Find the moments in a journal."""
    return Moments(
        started=_first(journal, EventType.RUN_STARTED),
        asked=_first(journal, EventType.STEP_INTENT, _ASKED),
        converged=_first(journal, EventType.STEP_FINISHED, _CONVERGED, passed=True),
        verified=_first(journal, EventType.STEP_FINISHED, _VERIFIED, passed=True),
        finished=_first(journal, EventType.RUN_FINISHED),
    )


def _first(journal: Sequence[Event], kind: EventType, step: str = "", *, passed: bool = False) -> float | None:
    found = (event for event in journal if event.type is kind and event.step.rpartition(".")[2] == step)
    return next((event.at for event in found if not passed or event.data.get("verdict") == "pass"), None)
