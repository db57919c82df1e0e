"""Tracing as a component of the layer: context always, spans where there is an endpoint."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from sage_obs.metrics.store import Store
from sage_obs.privacy.redaction import redact_text
from sage_obs.settings import Settings
from sage_obs.tracing.active import SpanSource, Tracing, use
from sage_obs.tracing.tail import Policy

if TYPE_CHECKING:  # importing it is what an endpoint is for
    from opentelemetry.sdk.trace import TracerProvider

    from sage_obs.tracing.export import ExportProcessor

_EXPORTER: Final = "OTEL_TRACES_EXPORTER"
_OTLP: Final = frozenset({"otlp", "otlp_proto_http", "otlp_proto_grpc"})
_BASE_SOURCE: Final = "environment OTEL_EXPORTER_OTLP_ENDPOINT"
"""The one variable whose value is the base of all signals, by OpenTelemetry's specification of the OTLP exporter."""


class TracingComponent:
    """Decides what is sampled, carries the context and exports spans."""

    name = "traces"

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._processor: ExportProcessor | None = None

    def start(self) -> str:
        """Trace from now on."""
        settings = self._settings
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return self._carry("OTEL_SDK_DISABLED is set")
        if (theirs := _others_provider()) is not None and self._leaves_export_to(theirs):
            return self._join(theirs)
        if not settings.traces_endpoint:
            return self._carry("no endpoint is set (SAGE_TRACING_ENDPOINT)")
        if self._kept_out():
            return self._carry(f"OTEL_TRACES_EXPORTER is {os.environ[_EXPORTER]}")
        self._start_spans()
        kept = " and what failed, was slow or expensive" if settings.tail_sampling else ""
        return f"{settings.sampling_rate:.0%} of new traces{kept} to {redact_text(settings.traces_endpoint)}"

    def _carry(self, why: str) -> str:
        use(Tracing(ratio=self._settings.sampling_rate, propagate=True))
        return f"context only: {why}"

    def _join(self, provider: TracerProvider) -> str:
        """Make spans with a provider that sends them somewhere already. Its sampler decides, unless a rate of ours is set."""
        from sage_obs.tracing.otel import OtelSpans

        rate = self._settings.sources["sampling_rate"]
        use(Tracing(ratio=1.0 if rate.source == "default" else rate.value, propagate=True, spans=OtelSpans(provider)))
        return "spans by the provider that is there, which exports them"

    def _leaves_export_to(self, provider: TracerProvider) -> bool:
        """Whether a provider that is there exports what we would: to nowhere of ours, or to where OpenTelemetry's variables say."""
        from sage_obs.tracing.otel import exporters, exports_otlp

        if not exporters(provider):
            return False
        return not self._settings.traces_endpoint or self._kept_out() or (self._by_otel() and exports_otlp(provider))

    def _by_otel(self) -> bool:
        return self._settings.sources["traces_endpoint"].source.startswith("environment OTEL_")

    def _kept_out(self) -> bool:
        """Whether the endpoint is OpenTelemetry's, and its spans are to go somewhere else or nowhere."""
        names = {name.strip() for name in os.environ.get(_EXPORTER, "").split(",")} - {""}
        return self._by_otel() and bool(names) and not names & _OTLP

    def _start_spans(self) -> None:
        from sage_obs.resource import resource_of
        from sage_obs.tracing.export import ExportProcessor, traces_url
        from sage_obs.tracing.otel import provider_for, switch_to
        from sage_obs.tracing.post import Endpoint, manner_of

        settings = self._settings
        resource = resource_of(settings)
        provider = provider_for(resource, ratio=settings.sampling_rate)
        base = settings.sources["traces_endpoint"].source == _BASE_SOURCE
        endpoint = Endpoint(traces_url(settings.traces_endpoint, base=base), manner_of("traces"))
        self._processor = ExportProcessor(endpoint, self._store, resource.attributes, tail=settings.tail_sampling)
        switch_to(self._processor)
        tail = Policy(slow=settings.tail_slow, expensive=settings.tail_expensive) if settings.tail_sampling else None
        use(Tracing(ratio=settings.sampling_rate, propagate=True, spans=self._source(provider, self._processor), tail=tail))

    def _source(self, provider: TracerProvider, processor: ExportProcessor) -> SpanSource:
        """The layer's own spans, or those of a provider that was there before it."""
        from sage_obs.tracing.otel import OtelSpans, OwnProvider, limits_of
        from sage_obs.tracing.own import OwnSpans

        if not isinstance(provider, OwnProvider):
            return OtelSpans(provider)
        limits, ratio = limits_of(provider), self._settings.sampling_rate
        return OwnSpans(provider, processor.finished, ratio=ratio, limits=limits, waiting=processor.waiting)

    def flush(self, timeout: float) -> bool:
        """Export what is queued, waiting at most `timeout` seconds."""
        return self._processor is None or self._processor.force_flush(round(timeout * 1000))

    def finish(self, timeout: float) -> bool:
        """Export what is queued and end, within `timeout` seconds."""
        if self._processor is None:
            return True
        from sage_obs.tracing.otel import switch_to

        switch_to(None)
        processor, self._processor = self._processor, None
        return processor.close(timeout)

    def stop(self, timeout: float) -> None:
        """Stop tracing; what is queued is exported within `timeout` seconds."""
        use(Tracing())
        self.finish(timeout)

    def restart_after_fork(self) -> None:
        """Be usable in a forked child."""
        if self._processor is not None:
            self._processor.restart_after_fork()


def _others_provider() -> TracerProvider | None:
    """The provider of the application or of OpenTelemetry's command; nothing is imported to find that there is none."""
    if "opentelemetry.sdk.trace" not in sys.modules:
        return None
    from sage_obs.tracing.otel import existing_provider

    return existing_provider()
