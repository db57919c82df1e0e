"""The cells that the request path writes.

No locks: CPython hands the GIL over only at calls and backward jumps, and no update here has either between its read and its write,
so none is lost (the tests hammer this from threads). A free-threaded build needs a lock or an atomic per cell.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import dataclass
from typing import TypeAlias

Doubles: TypeAlias = "list[float] | memoryview[float]"
"""Where a cell's numbers are: in this process alone, or in memory that other processes read."""


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One observation that can be looked up: its value, the trace it belongs to (32 hex digits) and its Unix time."""

    value: float
    trace_id: str
    at: float


class Cell:
    """A counter's or a gauge's value for one set of labels."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: Doubles = [0.0]

    @property
    def value(self) -> float:
        """The value now."""
        return self.values[0]

    def add(self, amount: float = 1.0) -> None:
        """Add an amount, in the metric's unit."""
        self.values[0] += amount

    def set(self, value: float) -> None:
        """Set a gauge."""
        self.values[0] = float(value)

    def move(self, place: Doubles) -> None:
        """Go on in another place, where the value is then."""
        place[0] = self.values[0]
        self.values = place


class HistogramCell:
    """A histogram for one set of labels: counts per bucket (not cumulative), the sum, and the last exemplar of each bucket."""

    __slots__ = ("bounds", "exemplars", "values")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.values: Doubles = [0.0] * (len(bounds) + 2)
        self.exemplars: dict[int, Exemplar] = {}

    @property
    def counts(self) -> list[float]:
        """How many values each bucket holds; the last one has those over all bounds."""
        return list(self.values[:-1])

    @property
    def sum(self) -> float:
        """The sum of all values."""
        return self.values[-1]

    def observe(self, value: float) -> None:
        """Count a value, in the metric's unit."""
        bucket = bisect_left(self.bounds, value)
        self.values[bucket] += 1.0
        self.values[-1] += value

    def observe_traced(self, value: float, trace_id: str) -> None:
        """Count a value and keep it as the exemplar of its bucket."""
        bucket = bisect_left(self.bounds, value)
        self.values[bucket] += 1.0
        self.values[-1] += value
        self.exemplars[bucket] = Exemplar(value, trace_id, time.time())

    def move(self, place: Doubles) -> None:
        """Go on in another place, which holds zeros; what is here follows, as a copy first would miss what is counted meanwhile."""
        before = self.values
        self.values = place
        if before is not place:
            for index in range(len(before)):
                place[index] += before[index]
