"""Everything the layer records, in memory: no port, no network, no line on stdout."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import orjson

from sage_obs import lifecycle
from sage_obs.conventions import AGENT_METRICS
from sage_obs.errors import SageObsError
from sage_obs.layer import Libraries
from sage_obs.logs.lines import Identity, Lines
from sage_obs.testing.reset import reset
from sage_obs.testing.seen import Line, Span
from sage_obs.tracing.active import Tracing, use

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from prometheus_client.samples import Sample

_KNOWN: Final = frozenset(name for metric in AGENT_METRICS for name in metric.series)


class _LineKeeper(logging.Handler):
    """Keeps each record's line, made as the layer makes it."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines
        self.kept: list[Line] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line."""
        self.kept.append(orjson.loads(self._lines.line(record)))


class Captured:
    """What was recorded so far; once the block is over, what was recorded in it."""

    def __init__(self, keeper: _LineKeeper, exporter: InMemorySpanExporter) -> None:
        self._keeper = keeper
        self._exporter = exporter
        self._frozen: tuple[Sample, ...] | None = None

    def value(self, name: str, /, **labels: str) -> float:
        """The sum of the series of this name with these labels; 0 where there is none yet.

        The names are those on the wire: `sage_llm_tokens_total`, and of a histogram `…_count`, `…_sum` or `…_bucket`. Metrics that the
        application makes with prometheus_client are there too. Raises SageObsError for a name or a label that nothing has.
        """
        found = [sample for sample in self._samples() if sample.name == name]
        if not found and name not in _KNOWN:
            raise SageObsError(f"There is no metric `{name}`.", hint=_suggestion(name, {*_KNOWN, *(one.name for one in self._samples())}))
        for label in labels:
            if found and not any(label in sample.labels for sample in found):
                known = {key for sample in found for key in sample.labels}
                raise SageObsError(f"`{name}` has no label `{label}`.", hint=f"It has: {', '.join(sorted(known)) or 'none'}.")
        return sum(sample.value for sample in found if all(sample.labels.get(key) == wanted for key, wanted in labels.items()))

    @property
    def spans(self) -> tuple[Span, ...]:
        """The spans that ended, in that order; the application's own, made with OpenTelemetry, are among them."""
        return tuple(map(Span.of, self._exporter.get_finished_spans()))

    def span(self, name: str) -> Span:
        """The one span of this name. Raises SageObsError where there is none, or more than one."""
        found = [span for span in self.spans if span.name == name]
        if len(found) != 1:
            names = ", ".join(span.name for span in self.spans) or "none"
            raise SageObsError(f"{len(found)} spans are called `{name}`, not one.", hint=f"There are: {names}.")
        return found[0]

    @property
    def lines(self) -> tuple[Line, ...]:
        """The log's lines, in order."""
        return tuple(self._keeper.kept)

    @property
    def messages(self) -> tuple[str, ...]:
        """The messages of the log's lines."""
        return tuple(str(line["message"]) for line in self._keeper.kept)

    def _samples(self) -> tuple[Sample, ...]:
        return _read() if self._frozen is None else self._frozen

    def freeze(self) -> None:
        """Keep the values as they are now."""
        self._frozen = _read()


@contextmanager
def capture(
    service_name: str = "test",
    *,
    agent_id: str = "agent-test",
    libraries: Libraries = "auto",
    log_level: str = "info",
    content: str = "off",
    semconv: str = "legacy",
) -> Iterator[Captured]:
    """Record what happens inside the block in memory; every trace is sampled, and lines are kept from `log_level` on.

    `content` and `semconv` are those of `instrument()`.
    The layer runs as `instrument()` starts it, without its port, its output and its exporter; a call of `instrument()` inside the block
    changes nothing, so that applications can be tested that make it when they are imported. What ran before is switched off, and
    afterwards the layer is off.
    """
    reset()
    handle = lifecycle.instrument(
        service_name,
        agent_id=agent_id,
        version="0.0.0",
        enabled=True,
        metrics=True,
        traces=True,
        traces_endpoint="",
        metrics_endpoint="",
        content=content,
        semconv=semconv,
        health=True,
        libraries=libraries,
        disable=["ops", "logs"],
        strict=True,
    )
    lifecycle.hold(handle)
    keeper = _LineKeeper(Lines(Identity(agent_id, service_name, "0.0.0")))
    try:
        with _listening(keeper, log_level.upper()), _exporting() as exporter:
            captured = Captured(keeper, exporter)
            yield captured
            captured.freeze()
    finally:
        reset()


@contextmanager
def _listening(keeper: _LineKeeper, lowest: str) -> Iterator[None]:
    """Hear every record beside the handlers that are there, pytest's among them."""
    root = logging.getLogger()
    level = root.level
    root.addHandler(keeper)
    root.setLevel(lowest)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(keeper)


@contextmanager
def _exporting() -> Iterator[InMemorySpanExporter]:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from sage_obs.tracing.otel import OtelSpans, provider_for, switch_to

    exporter = InMemorySpanExporter()
    switch_to(SimpleSpanProcessor(exporter))
    use(Tracing(ratio=1.0, propagate=True, spans=OtelSpans(provider_for(Resource.create({}), ratio=1.0))))
    try:
        yield exporter
    finally:
        switch_to(None)


def _read() -> tuple[Sample, ...]:
    from prometheus_client import REGISTRY

    return tuple(sample for family in REGISTRY.collect() for sample in family.samples)


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"Did you mean `{close[0]}`?" if close else ""
