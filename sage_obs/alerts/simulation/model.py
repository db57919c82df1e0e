"""An incident, and what alerts do in it, as values."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class State(enum.StrEnum):
    """What becomes of an alert."""

    PENDING = "pending"
    FIRING = "firing"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Series:
    """One series in promtool's notation: its name with labels, and a value for every step."""

    name: str
    values: str

    def data(self) -> dict[str, str]:
        """An element of promtool's `input_series`."""
        return {"series": self.name, "values": self.values}


@dataclass(frozen=True, slots=True)
class Incident:
    """What was exposed, every `step` seconds over `seconds`.

    `origin` is the Unix time of the beginning, 0 for an incident that never was. Alerts are of interest from `shown` seconds on; before
    that the rules' windows fill.
    """

    series: tuple[Series, ...]
    step: float
    seconds: float
    origin: float = 0.0
    shown: float = 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """At `at` seconds after the incident's beginning the alert with these labels went into this state."""

    at: float
    alert: str
    labels: Mapping[str, str]
    state: State


@dataclass(frozen=True, slots=True)
class Spell:
    """An alert from its appearance to its end: its changes, in order of time. The last is no end where it had not ended by then."""

    changes: tuple[Change, ...]

    @property
    def alert(self) -> str:
        """The alert's name."""
        return self.changes[0].alert

    @property
    def labels(self) -> Mapping[str, str]:
        """The alert's labels."""
        return self.changes[0].labels

    @property
    def fired(self) -> bool:
        """Whether it ever fired."""
        return any(change.state is State.FIRING for change in self.changes)

    @property
    def ended(self) -> float | None:
        """When it ended."""
        last = self.changes[-1]
        return last.at if last.state is State.ENDED else None

    def state(self, at: float) -> State:
        """What it is at this time: ended before it began, too."""
        return next((change.state for change in reversed(self.changes) if change.at <= at), State.ENDED)
