"""Spans by the OpenTelemetry SDK. Imported only where an endpoint is set: the SDK takes a quarter of a second to load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from weakref import WeakSet

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, ParentBasedTraceIdRatio, Sampler, SamplingResult
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.span import TraceState
from opentelemetry.util.types import Attributes as OtelAttributes

from sage_obs.tracing.active import Attributes, OpenSpan
from sage_obs.tracing.context import Parent
from sage_obs.tracing.spans import Current, Limits, Unrecorded, context_of

_DECIDED: Final = otel_context.create_key("sage-obs-sampled")


class RequestSampler(Sampler):
    """Records what the layer has decided to record; other spans as their parent, or by the ratio (0 to 1)."""

    def __init__(self, ratio: float) -> None:
        self.tune(ratio)

    def tune(self, ratio: float) -> None:
        """Sample by this ratio from now on."""
        self._otherwise = ParentBasedTraceIdRatio(ratio)

    def should_sample(  # noqa: PLR0917 - the SDK's signature
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: OtelAttributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """The decision for one span."""
        if otel_context.get_value(_DECIDED, parent_context):
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)
        return self._otherwise.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """What the SDK calls this sampler."""
        return "RequestSampler"


class Switch(SpanProcessor):
    """The one processor added to a provider, which has no way to remove one: its target is switched instead."""

    def __init__(self) -> None:
        self.target: SpanProcessor | None = None

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Pass the start of a span on."""
        if (target := self.target) is not None:
            target.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """Pass a finished span on."""
        if (target := self.target) is not None:
            target.on_end(span)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Flush the target, waiting at most so many milliseconds."""
        return self.target is None or self.target.force_flush(timeout_millis)


class OtelSpan(Current):
    """A span of the SDK."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def enter(self) -> None:
        """Make it the current span here."""
        self.make_current(self._span)

    @property
    def recorded(self) -> bool:
        """Whether it is: the sampler of an application's own provider may have another opinion than the layer."""
        return self._span.is_recording()

    @property
    def ids(self) -> tuple[str, str, bool]:
        """Trace id, span id, and whether it is recorded."""
        return _ids(self._span.get_span_context())

    def end(self, *, name: str, attributes: Attributes, error_type: str) -> None:
        """Finish it; `error_type` is "" for success."""
        if not self._span.is_recording():
            return
        self._span.update_name(name)
        self._span.set_attributes(attributes)
        if error_type:
            self._span.set_attribute("error.type", error_type)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class OtelSpans:
    """Makes spans with a provider's tracer."""

    def __init__(self, provider: trace.TracerProvider) -> None:
        self.provider = provider
        self._tracer = provider.get_tracer("sage_obs")

    def server(self, *, name: str, ids: tuple[str, str], parent: Parent | None, local: bool = False) -> OtelSpan:
        """A span for a request, a server's unless it is `local`, which is the current one from here on. Its ids are the SDK's."""
        del ids
        around = otel_context.set_value(_DECIDED, True, Context())
        if parent is not None:
            remote = NonRecordingSpan(context_of(parent.trace_id, parent.span_id, sampled=True, remote=not local))
            around = trace.set_span_in_context(remote, around)
        kind = SpanKind.INTERNAL if local else SpanKind.SERVER
        span = OtelSpan(self._tracer.start_span(name, context=around, kind=kind))
        span.enter()
        return span

    def unrecorded(self, trace_id: str, span_id: str) -> Unrecorded:
        """One that carries the context of a request and records nothing; it is the current one from here on."""
        span = Unrecorded(trace_id, span_id)
        span.enter()
        return span

    def tentative(self, *, name: str, ids: tuple[str, str], parent: Parent | None, local: bool = False) -> None:
        """None: the SDK decides at the start of a span, and has exported its children before a request is over."""

    def settle(self, span: OpenSpan, *, keep: bool) -> None:
        """There is nothing to settle."""

    def client(self, *, name: str, attributes: Attributes) -> OtelSpan:
        """A client span under the current one. It is not made current: its user may be a generator."""
        return OtelSpan(self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=dict(attributes)))

    def internal(self, *, name: str, attributes: Attributes, attach: bool) -> OtelSpan:
        """An internal span under the current one; attached, it is the current one until it is left."""
        span = OtelSpan(self._tracer.start_span(name, kind=SpanKind.INTERNAL, attributes=dict(attributes)))
        if attach:
            span.enter()
        return span

    def current(self) -> tuple[str, str, bool] | None:
        """The ids of the span that is current here."""
        return ids_of(trace.get_current_span().get_span_context())


def ids_of(found: SpanContext) -> tuple[str, str, bool] | None:
    """Trace id, span id, and whether it is recorded; None for what is no span."""
    return _ids(found) if found.is_valid else None


def _ids(found: SpanContext) -> tuple[str, str, bool]:
    return f"{found.trace_id:032x}", f"{found.span_id:016x}", found.trace_flags.sampled


_switch: Final = Switch()
"""One for the process, as a provider cannot be rid of it."""
_switched: Final[WeakSet[TracerProvider]] = WeakSet()


class OwnProvider(TracerProvider):
    """A provider of ours. It is `watched` once somebody else wants to see its spans, which then must be the SDK's."""

    def __init__(self, resource: Resource, *, ratio: float) -> None:
        self._tunable = RequestSampler(ratio)
        super().__init__(sampler=self._tunable, resource=resource, shutdown_on_exit=False)
        self.watched = False

    def tune(self, resource: Resource, *, ratio: float) -> None:
        """Go on with another ratio and, for tracers that are made from now on, another resource: the API takes no second provider."""
        self._tunable.tune(ratio)
        self._resource = resource

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Add one, as the SDK does."""
        super().add_span_processor(span_processor)
        self.watched = self.watched or span_processor is not _switch


def limits_of(provider: TracerProvider) -> Limits:
    """How much OpenTelemetry's variables allow a span to hold."""
    limits: SpanLimits = provider._span_limits  # noqa: SLF001 - it tells nobody else, and reading the variables again would be a second truth
    return Limits(limits.max_span_attributes, limits.max_events, limits.max_links, limits.max_span_attribute_length)


def provider_for(resource: Resource, *, ratio: float) -> TracerProvider:
    """The application's provider where it has set one, else a new one of ours, which then serves the OpenTelemetry API too."""
    if (existing := existing_provider()) is not None:
        return _with_switch(existing)
    ours = trace.get_tracer_provider()
    if isinstance(ours, OwnProvider):
        ours.tune(resource, ratio=ratio)
        return ours
    provider = _with_switch(OwnProvider(resource, ratio=ratio))
    if not isinstance(ours, TracerProvider):
        trace.set_tracer_provider(provider)
    return provider


def existing_provider() -> TracerProvider | None:
    """The provider that somebody else has set, None where there is none or it is one of ours."""
    existing = trace.get_tracer_provider()
    return existing if isinstance(existing, TracerProvider) and not isinstance(existing, OwnProvider) else None


def exporters(provider: TracerProvider) -> list[object]:
    """What the provider's own processors hand spans to; a processor of unknown build stands for itself."""
    processors = getattr(getattr(provider, "_active_span_processor", None), "_span_processors", ())
    return [getattr(one, "span_exporter", one) for one in processors if one is not _switch]


def exports_otlp(provider: TracerProvider) -> bool:
    """Whether the provider sends its spans by OTLP already, so that ours would be a second time."""
    return any(type(one).__module__.startswith("opentelemetry.exporter.otlp") for one in exporters(provider))


def _with_switch(provider: TracerProvider) -> TracerProvider:
    if provider not in _switched:
        _switched.add(provider)
        provider.add_span_processor(_switch)
    return provider


def switch_to(target: SpanProcessor | None) -> None:
    """Send the spans of every provider we serve to this processor, or nowhere."""
    _switch.target = target
