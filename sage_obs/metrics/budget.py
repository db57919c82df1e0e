"""What label values may be: text of bounded length, and where it comes from outside, so many of them and then only `other`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

from sage_obs.conventions import OTHER, Metric
from sage_obs.privacy.redaction import redact_text

MAX_LABEL_LENGTH: Final = 128
"""In characters. The name of a model has fewer, and every series of a scrape repeats it."""
_SEARCHED: Final = 1024
"""How far a value is searched for secrets, of which the cut must leave no half."""
_UNKNOWN: Final = "unknown"


def label_text(value: object) -> str:
    """A value as a label can carry it: text of at most `MAX_LABEL_LENGTH` characters without secrets; `unknown` for None."""
    if type(value) is str and len(value) <= MAX_LABEL_LENGTH:
        return _short_text(value)
    return _bounded_text(value)


@functools.lru_cache(maxsize=2048)
def _short_text(value: str) -> str:
    """The same, remembered: the few names that label values are made of come again with every request."""
    return _bounded_text(value)


def _bounded_text(value: object) -> str:
    try:
        text = _UNKNOWN if value is None else value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        text = redact_text(text[:_SEARCHED].encode("utf-8", "replace").decode())
    except Exception:  # noqa: BLE001 - `__str__` is the caller's
        return _UNKNOWN
    return text if len(text) <= MAX_LABEL_LENGTH else f"{text[: MAX_LABEL_LENGTH - 1]}…"


class _Seen:
    """The values of one label. A value takes a place for good; a place taken twice at the same time is given back."""

    __slots__ = ("_places", "_values")

    def __init__(self, size: int) -> None:
        self._values: dict[str, object] = {}
        self._places: list[None] = [None] * size

    def admit(self, value: str) -> bool:
        if value in self._values:
            return True
        try:
            self._places.pop()
        except IndexError:
            return False
        mine = object()
        if self._values.setdefault(value, mine) is not mine:
            self._places.append(None)
        return True


class LabelBudget:
    """Admits the first `size` values of each budgeted label of each metric; `on_overflow` hears of every value that was folded.

    It takes no locks, for the reason given at `sage_obs.metrics.store.Family`.
    """

    def __init__(self, size: int, *, on_overflow: Callable[[str, str], None]) -> None:
        self._size = size
        self._on_overflow = on_overflow
        self._seen: dict[tuple[str, str], _Seen] = {}

    def fold(self, metric: Metric, values: tuple[object, ...]) -> tuple[str, ...]:
        """The label values as they may go on the wire, in the order of the metric's labels."""
        texts = tuple(map(label_text, values))
        if not metric.budgeted:
            return texts
        return tuple(
            self._admit(metric.name, label, text) if label in metric.budgeted else text
            for label, text in zip(metric.labels, texts, strict=True)
        )

    def _admit(self, metric: str, label: str, value: str) -> str:
        if value == OTHER:
            return value
        seen = self._seen.get((metric, label)) or self._seen.setdefault((metric, label), _Seen(self._size))
        if seen.admit(value):
            return value
        self._on_overflow(metric, label)
        return OTHER
