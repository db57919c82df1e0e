"""Spans of the SDK as an export tells them."""

from __future__ import annotations

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext
from opentelemetry.trace import Link as SdkLink

from sage_obs.tracing import otlp
from sage_obs.tracing.otlp import FIRST_KIND, LOCAL, REMOTE, Event, Facts, Link


def facts_of(span: ReadableSpan) -> Facts:
    """What an export says of a finished span."""
    context, parent, status = span.get_span_context() or INVALID_SPAN_CONTEXT, span.parent, span.status
    return Facts(
        *_ids(context),
        b"" if parent is None else parent.span_id.to_bytes(8, "big"),
        span.name,
        span.kind.value + FIRST_KIND,
        span.start_time or 0,
        span.end_time or 0,
        span.attributes or {},
        _flags(context, parent),
        context.trace_state.to_header(),
        [Event(event.timestamp, event.name, event.attributes or {}, event.dropped_attributes) for event in span.events],
        [_link(link) for link in span.links],
        status.status_code.value,
        status.description or "",
        (span.dropped_attributes, span.dropped_events, span.dropped_links),
    )


def resource_of(resource: Resource) -> bytes:
    """What a group says of an SDK's resource."""
    return otlp.resource(resource.attributes, resource.schema_url)


def scope_of(scope: InstrumentationScope | None) -> bytes:
    """What a group says of the library that made a span."""
    if scope is None:
        return b""
    return otlp.scope(scope.name, scope.version or "", scope.attributes or {}, scope.schema_url or "")


def _link(link: SdkLink) -> Link:
    context = link.context
    attributes, dropped = link.attributes or {}, link.dropped_attributes
    return Link(*_ids(context), context.trace_state.to_header(), attributes, dropped, _flags(context, context))


def _ids(context: SpanContext) -> tuple[bytes, bytes]:
    return context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")


def _flags(context: SpanContext, other: SpanContext | None) -> int:
    return context.trace_flags | (REMOTE if other is not None and other.is_remote else LOCAL)
