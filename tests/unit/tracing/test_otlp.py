from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Proto
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from sage_obs.tracing import otlp
from sage_obs.tracing.otlp import Facts
from sage_obs.tracing.readable import facts_of, resource_of, scope_of

_LOWEST_FLAGS = 0xFF

_text = st.text(st.characters(codec="utf-8"), max_size=12)
_scalars = st.one_of(_text, st.booleans(), st.integers(-(1 << 63), (1 << 63) - 1), st.floats(allow_nan=False))
_values = st.one_of(
    _scalars, st.lists(_text, max_size=3).map(tuple), st.lists(st.integers(-5, 5), max_size=3).map(tuple), st.binary(max_size=5)
)
_attributes = st.dictionaries(st.text("abcxyz._", min_size=1, max_size=8), _values, max_size=4)
_times = st.integers(1, (1 << 63) - 1)
_state = st.sampled_from([TraceState(), TraceState([("a", "1"), ("b", "2")])])
_contexts = st.builds(
    SpanContext,
    st.integers(1, (1 << 128) - 1),
    st.integers(1, (1 << 64) - 1),
    st.booleans(),
    st.sampled_from([TraceFlags(1), TraceFlags(0)]),
    _state,
)
_events = st.lists(st.builds(Event, _text, _attributes, _times), max_size=2)
_statuses = st.one_of(
    st.sampled_from([Status(StatusCode.UNSET), Status(StatusCode.OK)]), st.builds(lambda told: Status(StatusCode.ERROR, told), _text)
)
_spans = st.builds(
    ReadableSpan,
    name=_text,
    context=_contexts,
    parent=st.none() | _contexts,
    resource=st.builds(lambda given: Resource(given, "https://schema"), _attributes),
    attributes=_attributes,
    events=_events,
    links=st.lists(st.builds(Link, _contexts, _attributes), max_size=2),
    kind=st.sampled_from(SpanKind),
    status=_statuses,
    start_time=_times,
    end_time=_times,
    instrumentation_scope=st.builds(InstrumentationScope, _text, _text, st.just("https://scope"), _attributes),
)


def _ours(span: ReadableSpan) -> ExportTraceServiceRequest:
    body = otlp.request([(resource_of(span.resource), scope_of(span.instrumentation_scope), [facts_of(span)])])
    read: ExportTraceServiceRequest = ExportTraceServiceRequest.FromString(body)
    return read


def _comparable(request: ExportTraceServiceRequest) -> ExportTraceServiceRequest:
    """Without what the stock encoder leaves out: the flags of W3C, and the state of links."""
    for group in request.resource_spans:
        for scope in group.scope_spans:
            for span in scope.spans:
                span.flags &= ~_LOWEST_FLAGS
                span.status.SetInParent()
                for link in span.links:
                    link.flags &= ~_LOWEST_FLAGS
                    link.trace_state = ""
    return request


@given(_spans)
def test_the_bytes_say_what_the_stock_encoder_says(span: ReadableSpan) -> None:
    """Any span of the SDK reads the same, whichever of the two wrote it."""
    assert _comparable(_ours(span)) == _comparable(encode_spans([span]))


def _span(**facts: Any) -> Proto:
    made = Facts(b"t" * 16, b"s" * 8, b"", facts.pop("name", "n"), 1, 1, 2, **facts)
    request = ExportTraceServiceRequest.FromString(otlp.request([(otlp.resource({}), otlp.scope("x"), [made])]))
    found: Proto
    [found] = request.resource_spans[0].scope_spans[0].spans
    return found


SECRET = "sk-abcdefghijklmnopqrstuv"  # noqa: S105 - it opens nothing


@pytest.mark.parametrize(
    "place",
    [
        lambda: _span(name=f"GET /{SECRET}"),
        lambda: _span(attributes={"a": SECRET}),
        lambda: _span(attributes={"a": [SECRET]}),
        lambda: _span(attributes={"a": {"b": SECRET}}),
        lambda: _span(attributes={"a": "x" * 300 + " " + SECRET}),
        lambda: _span(attributes={"http.request.header.x-api-key": f"plain-{SECRET[3:]}"}),
        lambda: _span(events=[otlp.Event(1, f"e {SECRET}", {"exception.message": SECRET})]),
        lambda: _span(status=2, description=f"Error: {SECRET}"),
    ],
    ids=["name", "attribute", "list", "mapping", "long", "telling key", "event", "status"],
)
def test_no_credential_leaves_in_a_span(place: Callable[[], Proto]) -> None:
    """Wherever it stands, and whoever made the span."""
    assert SECRET[3:] not in str(place())


def test_what_is_no_attribute_is_told_by_its_type_alone() -> None:
    """An object's own words are not trusted."""

    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError(SECRET)

        __repr__ = __str__

    [found] = _span(attributes={"a": Hostile()}).attributes
    assert found.value.string_value == "<Hostile>"


def test_a_number_too_big_for_the_protocol_is_text() -> None:
    """Nothing is lost of it, and the export goes on."""
    [found] = _span(attributes={"a": 1 << 80}).attributes
    assert found.value.string_value == str(1 << 80)


def test_what_is_equal_but_of_another_type_stays_what_it_is() -> None:
    """1, 1.0 and True are one key of a dictionary, and three attributes."""
    kinds = [_span(attributes={"a": value}).attributes[0].value.WhichOneof("value") for value in (1, 1.0, True)]
    assert kinds == ["int_value", "double_value", "bool_value"]


@pytest.mark.parametrize(("first", "second"), [((1, 2), (True, 2)), ((1, 2), (1.0, 2.0)), ((True,), (1.0,)), (1, True)])
def test_values_that_are_equal_and_not_the_same_stay_apart(first: object, second: object) -> None:
    """What is remembered of one is not told of the other."""
    told = [_span(attributes={"equal": value}).SerializeToString() for value in (first, second)]
    assert told[0] != told[1]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("http.request.header.x-api-key", ("hunter2",)),
        ("http.request.header.cookie", ["session=hunter2"]),
        ("credentials", {"user": "hunter2"}),
        ("password", b"hunter2"),
        ("body", b'{"password": "hunter2"}'),
    ],
)
def test_no_secret_leaves_in_a_list_or_in_bytes(key: str, value: object) -> None:
    """The conventions have headers as lists, and what is under a secret's name is secret whatever its shape."""
    assert b"hunter2" not in _span(attributes={key: value}).SerializeToString()
