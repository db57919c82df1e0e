"""The bridge to prometheus_client: its registry sees our cells, so its exposition and every tool around it do too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import Metric as PromMetric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as PromExemplar
from prometheus_client.utils import floatToGoString

from sage_obs.metrics.cells import Cell, HistogramCell
from sage_obs.metrics.store import Family, Store


class StoreCollector(Collector):
    """Reads a store. `refresh` is called before each reading, to bring gauges up to date that nobody writes otherwise."""

    def __init__(self, store: Store, *, refresh: Callable[[], None]) -> None:
        self._store = store
        self._refresh = refresh

    def collect(self) -> Iterable[PromMetric]:
        """Every family that has children, with no `_created` series."""
        self._refresh()
        for family in self._store.families():
            if children := family.children():
                yield _read(family, children)

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
    total = 0
    for index, (bound, count) in enumerate(_buckets(cell)):
        total += count
        exemplar = cell.exemplars.get(index)
        shown = PromExemplar({"trace_id": exemplar.trace_id}, exemplar.value, exemplar.at) if exemplar else None
        read.add_sample(f"{read.name}_bucket", {**labels, "le": _le(bound)}, total, exemplar=shown)
    read.add_sample(f"{read.name}_sum", labels, cell.sum)
    read.add_sample(f"{read.name}_count", labels, total)


def _le(bound: float) -> str:
    """A bound as prometheus_client writes it, so that its parsers and other tools agree."""
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]


def _buckets(cell: HistogramCell) -> Iterator[tuple[float, int]]:
    yield from zip((*cell.bounds, float("inf")), list(cell.counts), strict=True)
