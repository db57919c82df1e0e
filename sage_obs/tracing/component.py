"""Tracing as a component of the layer: context always, spans where there is an endpoint."""

from __future__ import annotations

import importlib.metadata
import os
from typing import TYPE_CHECKING, Final

from sage_obs.metrics.store import Store
from sage_obs.settings import Settings
from sage_obs.tracing.active import Tracing, use

if TYPE_CHECKING:  # importing it is what an endpoint is for
    from sage_obs.tracing.export import ExportProcessor

_EXPORT_SECONDS: Final = 10.0
"""OTLP's default for one export, retries included."""
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
        if not settings.traces_endpoint:
            use(Tracing(ratio=settings.sampling_rate, propagate=True))
            return "context only: no endpoint is set (SAGE_TRACING_ENDPOINT)"
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            use(Tracing(ratio=settings.sampling_rate, propagate=True))
            return "context only: OTEL_SDK_DISABLED is set"
        self._start_spans()
        return f"{settings.sampling_rate:.0%} of new traces to {settings.traces_endpoint}"

    def _start_spans(self) -> None:
        from opentelemetry.sdk.resources import Resource

        from sage_obs.tracing.export import ExportProcessor, exporter_for, traces_url
        from sage_obs.tracing.otel import OtelSpans, provider_for, switch_to

        settings = self._settings
        resource = Resource.create(
            {
                "service.name": settings.service_name,
                "service.version": settings.version,
                "sage.agent_id": settings.agent_id,
                "telemetry.distro.name": "sage-obs",
                "telemetry.distro.version": importlib.metadata.version("sage-obs"),
            }
        )
        provider = provider_for(resource, ratio=settings.sampling_rate)
        base = settings.sources["traces_endpoint"].source == _BASE_SOURCE
        url = traces_url(settings.traces_endpoint, base=base)
        self._processor = ExportProcessor(exporter_for(url, timeout=_EXPORT_SECONDS), self._store)
        switch_to(self._processor)
        use(Tracing(ratio=settings.sampling_rate, propagate=True, spans=OtelSpans(provider)))

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
