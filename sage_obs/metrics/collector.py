"""The bridge to prometheus_client: its registry sees our cells, so its exposition and every tool around it do too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from prometheus_client import Metric as PromMetric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as PromExemplar

from sage_obs.metrics.cells import Cell, HistogramCell
from sage_obs.metrics.sharing import Sharing
from sage_obs.metrics.store import Family, Store
from sage_obs.metrics.wire import StoreText, number


class _Here(threading.local):
    """Whether this thread reads the registry without us."""

    left_out = False


class StoreCollector(Collector):
    """Reads a store, or where `sharing` has found others what all of them have counted.

    `refresh` is called before each reading, to bring gauges up to date that nobody writes otherwise.
    """

    def __init__(self, store: Store, *, refresh: Callable[[], None], sharing: Sharing | None = None) -> None:
        self._store = store
        self._refresh = refresh
        self._sharing = sharing
        self._texts: dict[Store, StoreText] = {}
        self._here = _Here()

    def render(self, *, openmetrics: bool) -> bytes:
        """The lines of every family that has children; an OpenMetrics page still needs its end."""
        self._refresh()
        with self._reading() as store:
            return b"".join(self._text(store).render(openmetrics=openmetrics))

    def _reading(self) -> AbstractContextManager[Store]:
        return nullcontext(self._store) if self._sharing is None else self._sharing.reading()

    def _text(self, store: Store) -> StoreText:
        if (known := self._texts.get(store)) is None:
            known = StoreText(store.families())
            self._texts = {store: known}
        return known

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """What this thread collects from a registry meanwhile is without us."""
        self._here.left_out = True
        try:
            yield
        finally:
            self._here.left_out = False

    def collect(self) -> Iterable[PromMetric]:
        """Every family that has children, with no `_created` series."""
        if self._here.left_out:
            return
        self._refresh()
        with self._reading() as store:
            read = [_read(family, children) for family in store.families() if (children := family.children())]
        yield from read

    def describe(self) -> Iterable[PromMetric]:
        """The names alone, by which the registry finds out about clashes."""
        for family in self._store.families():
            yield _empty(family)


def _empty(family: Family[Cell] | Family[HistogramCell]) -> PromMetric:
    metric = family.metric
    name = metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name
    return PromMetric(name, metric.help, metric.kind)


def _read(family: Family[Cell] | Family[HistogramCell], children: Iterable[tuple[tuple[str, ...], Cell | HistogramCell]]) -> PromMetric:
    read = _empty(family)
    for values, child in children:
        labels = dict(zip(family.metric.labels, values, strict=True))
        if isinstance(child, Cell):
            read.add_sample(family.metric.name, labels, child.value)
        else:
            _add_histogram(read, labels, child)
    return read


def _add_histogram(read: PromMetric, labels: dict[str, str], cell: HistogramCell) -> None:
    total = 0.0
    for index, (bound, count) in enumerate(_buckets(cell)):
        total += count
        exemplar = cell.exemplars.get(index)
        shown = PromExemplar({"trace_id": exemplar.trace_id}, exemplar.value, exemplar.at) if exemplar else None
        read.add_sample(f"{read.name}_bucket", {**labels, "le": number(bound)}, total, exemplar=shown)
    read.add_sample(f"{read.name}_sum", labels, cell.sum)
    read.add_sample(f"{read.name}_count", labels, total)


def _buckets(cell: HistogramCell) -> Iterator[tuple[float, float]]:
    yield from zip((*cell.bounds, float("inf")), cell.counts, strict=True)
