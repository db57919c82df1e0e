"""Spans to an OTLP/HTTP endpoint, with every loss counted and every wait bounded."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context, attach, detach, set_value
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from sage_obs.background import Batcher
from sage_obs.conventions import EXPORT_FAILURES, SPANS_DROPPED
from sage_obs.metrics.store import Store

_CAPACITY: Final = 2048
_BATCH: Final = 512
_DELAY_SECONDS: Final = 1.0
_TRACES_PATH: Final = "/v1/traces"


def traces_url(endpoint: str, *, base: bool = False) -> str:
    """Where spans are posted: an endpoint without a path, or one that is the `base` of all signals, gets the protocol's `/v1/traces`."""
    bare = urlsplit(endpoint).path in {"", "/"}
    return endpoint.rstrip("/") + _TRACES_PATH if bare or base else endpoint


class ExportProcessor(SpanProcessor):
    """Queues sampled spans and exports them in batches from a thread of its own."""

    def __init__(self, exporter: SpanExporter, store: Store) -> None:
        self._exporter = exporter
        self._failures = store.cell(EXPORT_FAILURES, "traces")
        self._dropped = store.cell(SPANS_DROPPED)
        self._batcher: Batcher[ReadableSpan] = Batcher(
            self._export, name="sage-obs-spans", capacity=_CAPACITY, batch=_BATCH, delay=_DELAY_SECONDS, on_drop=self._dropped.add
        )

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing happens until a span ends."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a finished span."""
        if span.context is not None and span.context.trace_flags.sampled:
            self._batcher.put(span)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Export what is queued, waiting at most so many milliseconds."""
        return self._batcher.flush(timeout_millis / 1000)

    def close(self, timeout: float) -> bool:
        """Export what is queued and end, within `timeout` seconds; whether all of it went out."""
        done = self._batcher.close(timeout)
        self._exporter.shutdown()
        return done

    def restart_after_fork(self) -> None:
        """Begin anew in a forked child."""
        self._batcher.restart_after_fork()

    def _export(self, batch: list[ReadableSpan]) -> None:
        unobserved = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        if not self._went_out(batch):
            self._failures.add()
            self._dropped.add(len(batch))
        detach(unobserved)

    def _went_out(self, batch: list[ReadableSpan]) -> bool:
        try:
            return self._exporter.export(batch) is SpanExportResult.SUCCESS
        except Exception:  # noqa: BLE001 - whatever an exporter raises, the spans are lost and counted
            return False


def exporter_for(url: str, *, timeout: float) -> OTLPSpanExporter:
    """An exporter that posts to `url` and gives up on a batch after `timeout` seconds."""
    return OTLPSpanExporter(endpoint=url, timeout=timeout)
