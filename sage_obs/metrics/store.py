"""Every metric of an instrumented service, with its children: what the parts write and what a scrape reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import nan
from typing import Final, Generic, Protocol, TypeVar

from sage_obs.conventions import AGENT_METRICS, LABEL_OVERFLOWS, OTHER, PUSHED_METRICS, Metric
from sage_obs.metrics.budget import LabelBudget
from sage_obs.metrics.cells import Cell, Doubles, HistogramCell

C = TypeVar("C", bound=Cell | HistogramCell)
DEFAULT_BUDGET: Final = 100


class Home(Protocol):
    """Where the numbers of children live that other processes read."""

    def place(self, name: str, labels: tuple[str, ...], bounds: tuple[float, ...], size: int) -> Doubles | None:
        """Room for the `size` numbers of a child, zeros if it is new; None where there is none left."""


class Family(Generic[C]):
    """One metric and its children by label values. Bind a child once and keep it: `child` is not for the request path.

    No locks: any allocation may run the garbage collector, and an abandoned generator that it closes may record here again, so a
    thread that held a lock would wait for itself. Every step that changes the children is one operation of a dictionary.
    """

    def __init__(self, metric: Metric, make: Callable[[], C], budget: LabelBudget) -> None:
        self.metric = metric
        self._make = make
        self._budget = budget
        self._children: dict[tuple[str, ...], C] = {}
        self._home: Home | None = None

    def child(self, *values: str) -> C:
        """The child with these label values, in the order of the metric's labels; past the budget, the one of `other`."""
        if len(values) != len(self.metric.labels):
            raise ValueError(f"{self.metric.name} takes the labels {self.metric.labels}, not {values}")
        found = self._children.get(values)
        return self._add(values) if found is None else found

    def _add(self, values: tuple[str, ...]) -> C:
        labels, mine = self.fold(values), self._make()
        child = self._children.setdefault(labels, mine)
        if child is mine and (place := self._place(labels, child)) is not None:
            child.move(place)
        return child

    def fold(self, values: tuple[str, ...]) -> tuple[str, ...]:
        """The label values of the child that these lead to."""
        return self._budget.fold(self.metric, values)

    def _place(self, labels: tuple[str, ...], child: C) -> Doubles | None:
        return None if self._home is None else self._home.place(self.metric.name, labels, self.metric.buckets, len(child.values))

    def move(self, home: Home) -> None:
        """Keep the numbers of all children there from now on; nothing is lost."""
        self._home = home
        for labels, child in self.children():
            if (place := self._place(labels, child)) is not None:
                child.move(place)

    def begin_anew(self, home: Home | None) -> None:
        """The same from zero, in a forked child: what its parent counted is the parent's. Only what it says of itself stays true."""
        self._home = home
        told = self.metric.kind == "gauge" and self.metric.merge != "sum"
        for labels, child in self.children():
            before, child.values = child.values, self._place(labels, child) or [0.0] * len(child.values)
            if told:
                child.values[0] = before[0]
            if isinstance(child, HistogramCell):
                child.exemplars = {}

    def clear(self) -> None:
        """Forget all children."""
        self._children = {}

    def children(self) -> Sequence[tuple[tuple[str, ...], C]]:
        """Label values and children, as they are now."""
        return list(self._children.copy().items())  # a list grows by allocating, and so may meet a new child half way

    def read(self) -> tuple[list[tuple[str, ...]], list[C]]:
        """The same apart: a list of label values, and the children in the same order."""
        now = self._children.copy()
        return list(now), list(now.values())

    def keep(self, values: frozenset[tuple[str, ...]]) -> None:
        """Forget the children with other label values than these; the one of `other` stays."""
        for key in self._children.copy():
            if key not in values and OTHER not in key and (gone := self._children.pop(key, None)) is not None:
                gone.values[0] = nan  # what other processes read of it


class Store:
    """The families of `conventions.AGENT_METRICS`.

    `budget` is how many values an open label may take; `objective`, in seconds, joins the bounds of the histograms it is a threshold
    of, so that a query hits it exactly. `overflows` is whether values past the budget are counted. With `pushes` there are those of
    `conventions.PUSHED_METRICS` too, which stay this process's own.
    """

    def __init__(
        self,
        *,
        budget: int = DEFAULT_BUDGET,
        objectives: Sequence[tuple[Metric, tuple[float, ...]]] = (),
        overflows: bool = True,
        pushes: bool = False,
    ) -> None:
        self._budget = LabelBudget(budget, on_overflow=self._overflowed if overflows else _ignored)
        extra = dict(objectives)
        self._cells = {metric: Family(metric, Cell, self._budget) for metric in AGENT_METRICS if metric.kind != "histogram"}
        self._histograms = {
            metric: self._histogram(metric, extra.get(metric, ())) for metric in AGENT_METRICS if metric.kind == "histogram"
        }
        self._pushed = {metric: self._histogram(metric, ()) for metric in PUSHED_METRICS} if pushes else {}
        self._histograms |= self._pushed

    def _histogram(self, metric: Metric, extra: tuple[float, ...]) -> Family[HistogramCell]:
        bounds = tuple(sorted({*metric.buckets, *extra}))
        return Family(replace(metric, buckets=bounds), lambda: HistogramCell(bounds), self._budget)

    def cell(self, metric: Metric, *values: str) -> Cell:
        """A counter's or a gauge's child."""
        return self._cells[metric].child(*values)

    def histogram(self, metric: Metric, *values: str) -> HistogramCell:
        """A histogram's child."""
        return self._histograms[metric].child(*values)

    @property
    def pushes(self) -> bool:
        """Whether it has what only a push shows."""
        return bool(self._pushed)

    def keep(self, metric: Metric, values: frozenset[tuple[str, ...]]) -> None:
        """Forget the children of a counter or gauge with other label values than these: they are no longer true."""
        self._cells[metric].keep(values)

    def move(self, home: Home) -> None:
        """Keep all numbers, of children to come too, where other processes read them."""
        for family in self.families():
            family.move(home)

    def begin_anew(self, home: Home | None) -> None:
        """In a forked child: count from zero, in its own place."""
        for family in self.families():
            family.begin_anew(home)
        for family in self._pushed.values():
            family.begin_anew(None)

    def every(self) -> Iterator[Family[Cell] | Family[HistogramCell]]:
        """Every family, those that only a push shows too."""
        yield from self.families()
        yield from self._pushed.values()

    def families(self) -> Iterator[Family[Cell] | Family[HistogramCell]]:
        """Every family that a scrape shows, in the order of the catalogue."""
        for metric in AGENT_METRICS:
            yield self._histograms[metric] if metric.kind == "histogram" else self._cells[metric]

    def _overflowed(self, metric: str, label: str) -> None:
        self._cells[LABEL_OVERFLOWS].child(metric, label).add()


def _ignored(metric: str, label: str) -> None:
    """Whoever counted first has counted the overflow."""
