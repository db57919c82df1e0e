"""The journal of a run: one JSON object a line, flushed to disk before anything else happens, each line chained to the one before.

A line's `sha256` covers everything else in it, and `prev` repeats the `sha256` of the line before; so a line that was changed,
removed or put in shows. Lines cut off the end leave a whole chain: they show by the seal that is put beside the journal of a run that
has ended. A run that was killed has no seal, and who can write to the folder can make chain and seal anew: against that, keep the head
elsewhere.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from sage_obs.errors import JournalError
from sage_obs.files import CorruptLineError, append_json, read_json_lines, replace_text

FILE: Final = "journal.jsonl"
SEAL: Final = "seal.json"
"""Beside the journal of a run that has ended: how many lines it has, and the last one's `sha256`."""
START: Final = "0" * 64
"""What the first line's `prev` holds."""
_END_OF_TIME: Final = 253_402_300_800.0
"""Unix time of the year 10000, which no calendar of ours can show."""


class EventType(enum.StrEnum):
    """What a line says happened."""

    RUN_STARTED = "run.started"
    RUN_RESUMED = "run.resumed"
    RUN_PAUSED = "run.paused"
    RUN_FINISHED = "run.finished"
    STEP_INTENT = "step.intent"
    STEP_FINISHED = "step.finished"


@dataclass(frozen=True, slots=True)
class Event:
    """One line. `at` is Unix time, `step` the step's id or "" for the run itself, `data` what the type calls for."""

    seq: int
    at: float
    run: str
    type: EventType
    step: str
    data: Mapping[str, Any]
    prev: str
    sha256: str

    def line(self) -> dict[str, Any]:
        """The event as it stands in the journal."""
        return {
            "seq": self.seq,
            "at": self.at,
            "run": self.run,
            "type": str(self.type),
            "step": self.step,
            "data": dict(self.data),
            "prev": self.prev,
            "sha256": self.sha256,
        }


def digest(event: Event) -> str:
    """SHA-256 over the event's line without its own `sha256`, as compact JSON with sorted keys."""
    content = {name: value for name, value in event.line().items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def next_event(before: Sequence[Event], *, at: float, run: str, kind: EventType, step: str, data: Mapping[str, Any]) -> Event:
    """The event that follows `before`."""
    seq, prev = (before[-1].seq + 1, before[-1].sha256) if before else (1, START)
    plain = json.loads(json.dumps(data))  # exactly what a reader will find
    event = Event(seq=seq, at=at, run=run, type=kind, step=step, data=plain, prev=prev, sha256="")
    return replace(event, sha256=digest(event))


class Log(Protocol):
    """What the engine writes to: a journal on disk, or in memory for a dry run."""

    @property
    def events(self) -> tuple[Event, ...]:
        """Everything written so far, oldest first."""

    def append(self, kind: EventType, *, step: str = "", data: Mapping[str, Any] | None = None) -> Event:
        """Write an event; it is safe once this returns. Raises JournalError."""


class MemoryLog:
    """The journal of a dry run: nothing touches the disk."""

    def __init__(self, *, run: str, clock: Callable[[], float]) -> None:
        self._run = run
        self._clock = clock
        self.events: tuple[Event, ...] = ()

    def append(self, kind: EventType, *, step: str = "", data: Mapping[str, Any] | None = None) -> Event:
        """See `Log.append`."""
        event = next_event(self.events, at=self._clock(), run=self._run, kind=kind, step=step, data=data or {})
        self.events = (*self.events, event)
        return event


class Journal:
    """The journal in a run's folder. Only the process that holds the run's lock may append."""

    def __init__(
        self,
        folder: Path,
        *,
        run: str,
        clock: Callable[[], float],
        write: Callable[[Path, Mapping[str, Any]], None] = append_json,
    ) -> None:
        self._path = folder / FILE
        self._run = run
        self._clock = clock
        self._write = write
        self.events: tuple[Event, ...] = read(folder)

    def append(self, kind: EventType, *, step: str = "", data: Mapping[str, Any] | None = None) -> Event:
        """See `Log.append`."""
        event = next_event(self.events, at=self._clock(), run=self._run, kind=kind, step=step, data=data or {})
        try:
            self._write(self._path, event.line())
        except OSError as exc:
            raise self._unwritable(exc, kind, step) from exc
        self.events = (*self.events, event)
        return event

    def _unwritable(self, exc: OSError, kind: EventType, step: str) -> JournalError:
        message = f"Cannot write the journal {self._path} ({exc.strerror or exc})."
        if kind is EventType.RUN_STARTED:
            return JournalError(f"{message} Nothing was changed.", hint="Make room, then run the same command again.")
        after = kind is EventType.STEP_FINISHED
        stopped = f"What {step} did stands; a resumed run finds out." if after else f"The run stopped before {step or 'it ended'}."
        return JournalError(f"{message} {stopped}", hint=f"Make room, then `sage-obs runbook resume {self._run}`.")

    def verify(self) -> None:
        """Check the chain as it lies on disk. Raises JournalError naming the first line that is not what was written."""
        trusted(self._path.parent)


def read(folder: Path) -> tuple[Event, ...]:
    """The events of a run's folder, oldest first. Raises JournalError where a line cannot be read."""
    try:
        return tuple(_event(line) for line in read_json_lines(folder / FILE))
    except (CorruptLineError, OSError, KeyError, TypeError, ValueError, RecursionError) as exc:
        raise JournalError(f"The journal {folder / FILE} cannot be read: {exc}", hint="Nothing was changed.") from exc


def _event(line: Mapping[str, Any]) -> Event:
    event = Event(**{**line, "type": EventType(line["type"])})
    texts = all(isinstance(text, str) for text in (event.run, event.step, event.prev, event.sha256))
    if not texts or type(event.seq) is not int or not isinstance(event.data, dict):
        raise TypeError(f"line {event.seq!r:.20} is no event")
    if type(event.at) not in (int, float) or not (math.isfinite(event.at) and 0 <= event.at < _END_OF_TIME):
        raise TypeError(f"line {event.seq} has no time")
    return event


def trusted(folder: Path) -> tuple[Event, ...]:
    """The events of a run's folder, oldest first, once numbering, chain, content and seal are checked. Raises JournalError."""
    events = read(folder)
    verify(events, source=str(folder / FILE))
    _check_seal(folder, events)
    return events


def seal(folder: Path, events: Sequence[Event]) -> None:
    """Put the seal on the journal of a run that has ended, unless it is there. A disk that has no room for it changes nothing else."""
    with suppress(OSError):
        if not (folder / SEAL).exists():
            replace_text(folder / SEAL, json.dumps(_seal(events)) + "\n")


def _seal(events: Sequence[Event]) -> dict[str, Any]:
    return {"lines": len(events), "head": events[-1].sha256 if events else START}


def _check_seal(folder: Path, events: Sequence[Event]) -> None:
    try:
        found = json.loads((folder / SEAL).read_bytes())
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError) as exc:
        raise JournalError(f"The seal {folder / SEAL} cannot be read: {exc}", hint="Its journal cannot be relied on.") from exc
    if found != _seal(events):
        raise JournalError(f"{folder / FILE} was changed: it does not end as it was sealed.", hint="Its record cannot be relied on.")


@contextmanager
def interpreting(source: str) -> Iterator[None]:
    """Raise JournalError, naming `source`, where data that passed every check of form turns out to be something else."""
    try:
        yield
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, ArithmeticError) as exc:
        raise JournalError(
            f"{source} holds what no run writes ({type(exc).__name__}: {exc}).", hint="Its record cannot be relied on."
        ) from exc


def verify(events: Sequence[Event], *, source: str) -> None:
    """Check numbering, chain and content. Raises JournalError naming the first line that is not what was written."""
    prev = START
    for number, event in enumerate(events, 1):
        if event.seq != number or event.prev != prev or digest(event) != event.sha256:
            raise JournalError(f"{source} was changed: line {number} is not what was written.", hint="Its record cannot be relied on.")
        prev = event.sha256


def make_private(folder: Path) -> None:
    """Create a folder that only its owner may read. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.chmod(folder, 0o700)  # noqa: PTH101 - mkdir's mode is subject to the umask and to a folder that was there
