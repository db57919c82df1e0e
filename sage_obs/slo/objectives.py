"""Objectives: which share of which events may be bad. The guide's own, and those of a user, in the same shape."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sage_obs.conventions import REQUEST_OVERHEAD, REQUESTS, Metric, Outcome
from sage_obs.slo.burn import ERROR_BUDGET, FAST_SHARE
from sage_obs.slo.promql import select
from sage_obs.slo.signals import Selector
from sage_obs.slo.triggers import OVERHEAD_OBJECTIVE_SECONDS

NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Counted:
    """Events of a counter, the bad ones by their labels."""

    bad: Selector
    total: Selector

    @property
    def metric(self) -> Metric:
        """What is counted."""
        return self.total.metric

    def bad_rate(self, window: str) -> str:
        """Bad events a second, by job."""
        return f"sum by (job) (rate({select(self.bad, window=window)})) or 0 * {self.total_rate(window)}"

    def total_rate(self, window: str) -> str:
        """Events a second, by job."""
        return f"sum by (job) (rate({select(self.total, window=window)}))"


@dataclass(frozen=True, slots=True)
class Timed:
    """Observations of a histogram, bad where they took longer than `under` seconds, which is one of its bounds."""

    histogram: Metric
    under: float
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def metric(self) -> Metric:
        """What is measured."""
        return self.histogram

    def bad_rate(self, window: str) -> str:
        """Slow observations a second, by job."""
        bound = ("le", (f"{self.under:g}", f"{self.under:.1f}") if self.under == int(self.under) else (f"{self.under:g}",))
        fast = select(Selector(self.histogram, include=(*self.where, bound)), suffix="_bucket", window=window)
        return f"{self.total_rate(window)} - sum by (job) (rate({fast}))"

    def total_rate(self, window: str) -> str:
        """Observations a second, by job."""
        return f"sum by (job) (rate({select(Selector(self.histogram, include=self.where), suffix='_count', window=window)}))"


@dataclass(frozen=True, slots=True)
class Objective:
    """A promise: at least `target` of the events, 0 to 1, are good."""

    name: str
    sentence: str
    target: float
    events: Counted | Timed

    @property
    def budget(self) -> float:
        """The share of events that may be bad."""
        return round(1 - self.target, 9)


_SERVED: Final = (("outcome", (Outcome.CANCELLED.value, Outcome.CLIENT_ERROR.value)),)

AVAILABILITY: Final = Objective(
    "availability",
    "requests that fail in the server or are turned away",
    round(1 - ERROR_BUDGET, 9),
    Counted(
        bad=Selector(REQUESTS, include=(("outcome", (Outcome.SERVER_ERROR.value, Outcome.REJECTED.value)),)),
        total=Selector(REQUESTS, exclude=_SERVED),
    ),
)
LATENCY: Final = Objective(
    "latency",
    f"requests that spend longer than {OVERHEAD_OBJECTIVE_SECONDS:g} s outside models and tools",
    FAST_SHARE,
    Timed(REQUEST_OVERHEAD, OVERHEAD_OBJECTIVE_SECONDS),
)
OBJECTIVES: Final = (AVAILABILITY, LATENCY)
"""The guide's."""
