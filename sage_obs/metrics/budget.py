"""The label budget: a label whose values come from outside takes so many of them, and then only `other`."""

from __future__ import annotations

from collections.abc import Callable

from sage_obs.conventions import OTHER, Metric


class LabelBudget:
    """Admits the first `size` values of each budgeted label of each metric; `on_overflow` hears of every value that was folded."""

    def __init__(self, size: int, *, on_overflow: Callable[[str, str], None]) -> None:
        self._size = size
        self._on_overflow = on_overflow
        self._seen: dict[tuple[str, str], set[str]] = {}

    def fold(self, metric: Metric, values: tuple[str, ...]) -> tuple[str, ...]:
        """The label values as they may go on the wire, in the order of the metric's labels."""
        if not metric.budgeted:
            return values
        return tuple(
            self._admit(metric.name, label, value) if label in metric.budgeted else value
            for label, value in zip(metric.labels, values, strict=True)
        )

    def _admit(self, metric: str, label: str, value: str) -> str:
        seen = self._seen.setdefault((metric, label), set())
        if value in seen or value == OTHER:
            return value
        if len(seen) < self._size:
            seen.add(value)
            return value
        self._on_overflow(metric, label)
        return OTHER
