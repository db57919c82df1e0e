"""Our families as the text of a scrape, in both formats, from what never changes of each line.

The same bytes as prometheus_client's encoders make of the same content, which the tests compare; those take some fifteen microseconds
a line, mostly to sort and quote labels again for each scrape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from math import inf
from typing import Final

import orjson
from prometheus_client.utils import floatToGoString

from sage_obs.metrics.cells import Cell, Exemplar, HistogramCell
from sage_obs.metrics.store import Family

Labels = tuple[str, ...]
_LEAST, _MOST = 1e-4, 1e6
"""Between these, Go, Python and JSON write a number the same way: shortest, and without an exponent."""
_NO_BUCKETS: Final = ("_sum", "_count")


def number(value: float) -> str:
    """A number as prometheus_client writes it."""
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


def numbers(values: Sequence[float]) -> list[bytes]:
    """Many of them; orjson takes a fifth of `repr`'s time."""
    try:
        written = orjson.dumps(values)[1:-1].split(b",")
    except TypeError:  # a float of another library, such as numpy's
        return [number(value).encode() for value in values]
    for at in [at for at, value in enumerate(values) if not (_LEAST <= value < _MOST or value == 0)]:
        written[at] = number(values[at]).encode()
    return written


def quoted(text: str, *, quotes: bool = True) -> str:
    """Text as it stands in a line, where a line break and, between quotes, a quote would end it."""
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text


class FamilyText:
    """The lines of one family. What stands before each value is kept for as long as the child is there."""

    def __init__(self, family: Family[Cell] | Family[HistogramCell]) -> None:
        self._family = family
        self._metric = family.metric
        self._heads = {openmetrics: self._head(openmetrics=openmetrics).encode() for openmetrics in (False, True)}
        self._kept: tuple[list[Labels], dict[Labels, list[bytes]], list[bytes]] = ([], {}, [])

    def _head(self, *, openmetrics: bool) -> str:
        metric = self._metric
        name = metric.name.removesuffix("_total") if openmetrics and metric.kind == "counter" else metric.name
        return f"# HELP {name} {quoted(metric.help, quotes=openmetrics)}\n# TYPE {name} {metric.kind}"

    def render(self, *, openmetrics: bool) -> bytes:
        """Its lines as they are now, nothing where it has no children."""
        labels, children = self._family.read()
        if not children:
            return b""
        values, places = _values(children)
        written = numbers(values)
        if openmetrics:
            for place, exemplar in places:
                written[place] += _exemplar(exemplar)
        pieces = [b""] * (2 * len(written))
        pieces[::2] = self._starts(labels)
        pieces[1::2] = written
        return b"".join((self._heads[openmetrics], *pieces, b"\n"))

    def _starts(self, labels: list[Labels]) -> list[bytes]:
        """What stands before each value, the end of the line before it included."""
        known, by_child, starts = self._kept
        if labels != known:
            by_child = {one: by_child.get(one) or self._lines(one) for one in labels}
            starts = list(chain.from_iterable(by_child.values()))
            self._kept = (labels, by_child, starts)  # in one step: scrapes may come at once
        return starts

    def _lines(self, values: Labels) -> list[bytes]:
        metric = self._metric
        labels = dict(zip(metric.labels, values, strict=True))
        if metric.kind != "histogram":
            return [_start(metric.name, labels)]
        bounds = map(number, (*metric.buckets, inf))
        buckets = [_start(f"{metric.name}_bucket", {**labels, "le": bound}) for bound in bounds]
        return [*buckets, *(_start(metric.name + suffix, labels) for suffix in _NO_BUCKETS)]


def _start(name: str, labels: dict[str, str]) -> bytes:
    shown = ",".join(f'{label}="{quoted(value)}"' for label, value in sorted(labels.items()))
    return (f"\n{name}{{{shown}}} " if shown else f"\n{name} ").encode()


def _values(children: Sequence[Cell | HistogramCell]) -> tuple[list[float], list[tuple[int, Exemplar]]]:
    """The value of each line, and which lines have an exemplar."""
    if isinstance(children[0], Cell):
        return [child.values[0] for child in children], []
    values: list[float] = []
    places: list[tuple[int, Exemplar]] = []
    for child in children:
        if isinstance(child, HistogramCell):
            places += ((len(values) + bucket, exemplar) for bucket, exemplar in child.exemplars.copy().items())
            *counts, total = list(child.values)
            values += accumulate(counts)
            values += (total, values[-1])
    return values, places


def _exemplar(exemplar: Exemplar) -> bytes:
    return f' # {{trace_id="{quoted(exemplar.trace_id)}"}} {number(exemplar.value)} {exemplar.at}'.encode()


class StoreText:
    """Every family of a store."""

    def __init__(self, families: Iterable[Family[Cell] | Family[HistogramCell]]) -> None:
        self._families = [FamilyText(family) for family in families]

    def render(self, *, openmetrics: bool) -> Iterator[bytes]:
        """The lines of each family, without the mark that ends an OpenMetrics page."""
        for family in self._families:
            yield family.render(openmetrics=openmetrics)
