"""A store as OTLP metrics: cumulative sums and histograms from the time the counting began, and gauges.

Imported where something is pushed, as the SDK is for its data model and its encoder.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, cast

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from sage_obs import conventions
from sage_obs.metrics.cells import Cell, HistogramCell
from sage_obs.metrics.store import Family, Store
from sage_obs.privacy.redaction import MASK, redact_text, secret_name
from sage_obs.semconv import said

_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE
_UNITS: Final = {
    "_seconds": "s",
    ".duration": "s",
    "_bytes": "By",
    "_ratio": "1",
    "_usd": "{USD}",
    "tokens": "{token}",
    "token.usage": "{token}",
}
"""Units of UCUM, as OpenTelemetry has them, by the end of a name."""
_NANOSECONDS: Final = 10**9
_SCOPE: Final = "sage_obs"


def unit_of(name: str) -> str:
    """The unit that a metric's name says it has, "1" for a number of something."""
    bare = name.removesuffix("_total")
    return next((unit for end, unit in _UNITS.items() if bare.endswith(end)), "1")


def request(store: Store, resource: Resource, *, since: float, now: float) -> bytes:
    """The export of everything that a store holds, counted since a Unix time, in seconds, until another one."""
    return bytes(encode_metrics(_data(store, resource, since=since, now=now)).SerializeToString())


def _data(store: Store, resource: Resource, *, since: float, now: float) -> MetricsData:
    window = {"start_time_unix_nano": round(since * _NANOSECONDS), "time_unix_nano": round(now * _NANOSECONDS)}
    metrics = [metric for family in store.every() for metric in _metric(family, window)]
    scope = ScopeMetrics(scope=InstrumentationScope(_SCOPE), metrics=metrics, schema_url="")
    return MetricsData([ResourceMetrics(resource=_without_secrets(resource), scope_metrics=[scope], schema_url=resource.schema_url)])


def _without_secrets(resource: Resource) -> Resource:
    """OTEL_RESOURCE_ATTRIBUTES may say anything."""
    texts = {name: value for name, value in resource.attributes.items() if isinstance(value, str)}
    safe = {name: MASK if secret_name(name) else redact_text(value) for name, value in texts.items()}
    return Resource({**resource.attributes, **safe}, resource.schema_url)


def _metric(family: Family[Cell] | Family[HistogramCell], window: Mapping[str, int]) -> Iterator[Metric]:
    metric, children = family.metric, family.children()
    data: Any
    if metric.kind == "histogram":
        points = [_histogram(metric, labels, cast("HistogramCell", child), window) for labels, child in children]
        data = Histogram(points, _CUMULATIVE)
    else:
        numbers = list(_numbers(metric, cast("Iterable[tuple[tuple[str, ...], Cell]]", children), window))
        data = Sum(numbers, _CUMULATIVE, is_monotonic=True) if metric.kind == "counter" else Gauge(numbers)
    if data.data_points:
        yield Metric(name=metric.name, description=metric.help, unit=unit_of(metric.name), data=data)


def _numbers(
    metric: conventions.Metric, children: Iterable[tuple[tuple[str, ...], Cell]], window: Mapping[str, int]
) -> Iterator[NumberDataPoint]:
    """The values; one that was taken back is no number."""
    for labels, child in children:
        if not math.isnan(value := float(child.value)):
            yield NumberDataPoint(attributes=_attributes(metric, labels), value=value, exemplars=[], **window)


def _histogram(metric: conventions.Metric, labels: tuple[str, ...], cell: HistogramCell, window: Mapping[str, int]) -> HistogramDataPoint:
    exemplars = cell.exemplars.copy().values()
    counts = [int(count) for count in cell.counts]
    return HistogramDataPoint(
        attributes=_attributes(metric, labels),
        count=sum(counts),
        sum=float(cell.sum),
        bucket_counts=counts,
        explicit_bounds=cell.bounds,
        min=cast("float", None),  # which the cells do not keep, and OTLP does not ask for
        max=cast("float", None),
        exemplars=[_exemplar(one.value, one.trace_id, one.at) for one in exemplars],
        **window,
    )


def _exemplar(value: float, trace_id: str, at: float) -> Exemplar:
    """The trace it belongs to; a span of 0 is none."""
    return Exemplar({}, float(value), round(at * _NANOSECONDS), 0, int(trace_id, 16))


def _attributes(metric: conventions.Metric, labels: tuple[str, ...]) -> dict[str, str]:
    """Labels as attributes; a label that says nothing is none."""
    return said({name: value for name, value in zip(metric.labels, labels, strict=True) if value})
