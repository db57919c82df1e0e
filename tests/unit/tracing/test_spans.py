from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from sage_obs.tracing.active import Tracing
from sage_obs.tracing.context import Parent, request_var
from sage_obs.tracing.otel import OtelSpans, OwnProvider
from sage_obs.tracing.otlp import Facts
from sage_obs.tracing.own import OwnSpans
from sage_obs.tracing.readable import facts_of
from sage_obs.tracing.spans import Limits, Recorded

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
IDS = (TRACE, SPAN)


def _recorded(finished: list[Recorded], **given: Any) -> Recorded:
    return Recorded(finished.append, "n", SpanKind.SERVER, IDS, **given)


def _sources(ratio: float = 1.0) -> tuple[OwnSpans, list[Recorded], OwnProvider]:
    finished: list[Recorded] = []
    provider = OwnProvider(Resource.create({}), ratio=ratio)
    return OwnSpans(provider, finished.append, ratio=ratio, limits=Limits()), finished, provider


def _raising(span: Span) -> None:
    try:
        WRITES["gone"](span)
    except LookupError as exc:
        span.record_exception(exc, {"more": 1})


LINKED = SpanContext(1 << 100, 1 << 50, is_remote=True, trace_flags=TraceFlags(1))
WRITES: dict[str, Callable[[Span], object]] = {
    "attributes": lambda span: span.set_attributes({"a": "x", "b": 2, "c": [1, 2]}),
    "attribute again": lambda span: (span.set_attribute("a", 1), span.set_attribute("a", 2)),
    "name": lambda span: span.update_name("m"),
    "event": lambda span: span.add_event("e", {"a": True}, 5),
    "link": lambda span: span.add_link(LINKED, {"a": 1.5}),
    "error": lambda span: span.set_status(Status(StatusCode.ERROR, "why")),
    "code": lambda span: span.set_status(StatusCode.ERROR, "why"),
    "ok is the last word": lambda span: (span.set_status(StatusCode.OK), span.set_status(StatusCode.ERROR)),
    "nobody unsets": lambda span: (span.set_status(StatusCode.ERROR), span.set_status(StatusCode.UNSET)),
    "exception": _raising,
    "after the end": lambda span: (span.end(), span.set_attribute("late", 1), span.add_event("late"), span.update_name("late")),
    "too many attributes": lambda span: span.set_attributes({f"a{number}": number for number in range(200)}),
    "too many events": lambda span: [span.add_event("e", timestamp=1) for _ in range(200)],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_whoever_writes_to_a_span_gets_what_the_sdk_would_keep(write: Callable[[Span], object]) -> None:
    """The same calls on a span of ours and of the SDK's leave the same behind."""
    assert _comparable(_of_ours(write)) == _comparable(_of_the_sdk(write))


def _of_ours(write: Callable[[Span], object]) -> Facts:
    finished: list[Recorded] = []
    span = _recorded(finished)
    write(span)
    span.end()
    [found] = finished
    return found.facts()


def _of_the_sdk(write: Callable[[Span], object]) -> Facts:
    exporter, provider = InMemorySpanExporter(), OwnProvider(Resource.create({}), ratio=1.0)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    span = provider.get_tracer("x").start_span("n", kind=SpanKind.SERVER)
    write(span)
    span.end()
    [found] = exporter.get_finished_spans()
    return facts_of(found)


def _comparable(facts: Facts) -> dict[str, Any]:
    """What does not depend on the clock, the ids or the line of the test."""
    left = facts._asdict()
    for name in ("trace_id", "span_id", "start", "end"):
        del left[name]
    left["flags"] &= ~0x02  # that the id is random, which only newer SDKs say
    left["attributes"] = dict(facts.attributes)
    left["events"] = [
        (event.name, {key: value for key, value in event.attributes.items() if key != "exception.stacktrace"}, event.dropped)
        for event in facts.events
    ]
    left["links"] = [link._replace(attributes=dict(link.attributes)) for link in facts.links]
    return left


def test_a_span_keeps_what_a_list_held_when_it_was_given() -> None:
    """What becomes of the caller's list afterwards is the caller's."""
    finished: list[Recorded] = []
    span, given = _recorded(finished), [1]
    span.set_attribute("a", given)
    given.append(2)
    span.end()
    assert finished[0].facts().attributes == {"a": (1,)}


def test_a_list_that_holds_itself_breaks_nothing() -> None:
    """Whoever sets it hears nothing of it, and the span goes out."""
    finished: list[Recorded] = []
    span, endless = _recorded(finished), list[Any]()
    endless.append(endless)
    span.set_attribute("a", endless)
    span.end()
    assert finished[0].facts().attributes == {"a": (((("<list>",),),),)}


def test_texts_are_cut_to_the_limit() -> None:
    """OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT holds for lists too."""
    finished: list[Recorded] = []
    span = _recorded(finished, limits=Limits(length=3))
    span.set_attributes({"a": "abcdef", "b": ["abcdef"]})
    span.end()
    assert finished[0].facts().attributes == {"a": "abc", "b": ("abc",)}


def test_a_span_ends_once() -> None:
    """The first end counts, whoever says it."""
    finished: list[Recorded] = []
    span = _recorded(finished)
    span.end(end_time=123)
    span.end(name="late", attributes={"a": 1}, error_type="timeout")
    [facts] = [one.facts() for one in finished]
    assert (facts.end, facts.name, facts.attributes, facts.status) == (123, "n", {}, 0)
    assert not span.recorded
    assert not span.is_recording()


def test_a_clock_that_is_set_back_makes_no_span_of_negative_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """The duration is measured by a clock that nobody sets."""
    finished: list[Recorded] = []
    span = _recorded(finished)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    span.end()
    facts = finished[0].facts()
    assert 0 <= facts.end - facts.start < 60e9


def test_a_spans_size_is_that_of_its_texts_wherever_they_are() -> None:
    """What waits for its fate is bounded in bytes, those in lists and events included."""
    span, text = _recorded([]), "x" * 10_000
    span.set_attributes({"a": text, "b": [text, [text]], "c": 1})
    span.add_event("e", {"d": text})
    assert 40_000 < span.size < 45_000


def test_an_exception_through_a_span_is_on_it() -> None:
    """As a context manager it records what passes, and lets it pass."""
    finished: list[Recorded] = []
    with pytest.raises(LookupError), _recorded(finished):
        raise LookupError("gone")
    facts = finished[0].facts()
    assert (facts.status, facts.description) == (2, "LookupError: gone")
    assert [event.name for event in facts.events] == ["exception"]


def test_an_exception_without_words_does_not_break_the_span() -> None:
    """Its `__str__` raises, its type is told."""

    class Mute(Exception):  # noqa: N818 - a name
        def __str__(self) -> str:
            raise RuntimeError

    finished: list[Recorded] = []
    span = _recorded(finished)
    span.record_exception(Mute())
    span.end()
    assert finished[0].facts().events[0].attributes["exception.message"] == "<Mute>"


@pytest.fixture(params=["ours", "watched"])
def source(request: pytest.FixtureRequest) -> tuple[OwnSpans, Callable[[], list[Facts]]]:
    """Spans of our own, and of the SDK where somebody watches the provider."""
    spans, finished, provider = _sources(ratio=0.0)
    exporter = InMemorySpanExporter()
    if request.param == "watched":
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        assert provider.watched
    return spans, lambda: [span.facts() for span in finished] + [facts_of(span) for span in exporter.get_finished_spans()]


def test_children_hang_under_the_request(source: tuple[OwnSpans, Callable[[], list[Facts]]]) -> None:
    """Those of the layer and those of the application, in the trace of the caller."""
    spans, told = source
    tracing = Tracing(ratio=0.0, propagate=True, spans=spans)
    request, server = tracing.begin(name="GET", request_id="r", parent=Parent(TRACE, SPAN, sampled=True))
    assert server is not None
    agent = spans.internal(name="agent", attributes={"a": "b"}, attach=True)
    client = spans.client(name="chat", attributes={})
    assert tracing.outgoing() == f"00-{TRACE}-{agent.ids[1]}-01"
    client.end(name="chat x", attributes={"n": 1}, error_type="timeout")
    agent.end(name="agent", attributes={}, error_type="")
    agent.leave()
    server.end(name="GET /x", attributes={}, error_type="")
    server.leave()
    found = {facts.name: facts for facts in told()}
    assert set(found) == {"chat x", "agent", "GET /x"}
    assert {facts.trace_id.hex() for facts in found.values()} == {TRACE} == {request.trace_id}
    assert found["chat x"].parent_id == found["agent"].span_id
    assert found["agent"].parent_id == found["GET /x"].span_id
    assert found["GET /x"].parent_id.hex() == SPAN
    assert (found["GET /x"].kind, found["chat x"].kind, found["agent"].kind) == (2, 3, 1)
    assert found["chat x"].attributes == {"n": 1, "error.type": "timeout"}
    assert (found["chat x"].status, found["GET /x"].status) == (2, 0)
    assert (found["GET /x"].flags & 0x300, found["chat x"].flags & 0x300) == (0x300, 0x100)
    assert not trace.get_current_span().get_span_context().is_valid


def test_work_of_this_process_hangs_under_the_span_around_it(source: tuple[OwnSpans, Callable[[], list[Facts]]]) -> None:
    """An agent that a consumer calls is part of the consumer's trace, and sampled as that is; a request from outside is not."""
    spans, told = source
    tracing = Tracing(ratio=0.0, spans=spans)
    consumer = trace.NonRecordingSpan(SpanContext(int(TRACE, 16), int(SPAN, 16), is_remote=False, trace_flags=TraceFlags(1)))
    with trace.use_span(consumer):
        for local in (True, False):
            _, span = tracing.begin(name=f"local {local}", request_id="", parent=None, local=local)
            assert span is not None
            span.end(name=f"local {local}", attributes={}, error_type="")
            span.leave()
    [agent] = told()
    assert (agent.name, agent.trace_id.hex(), agent.parent_id.hex(), agent.flags & 0x300) == ("local True", TRACE, SPAN, 0x100)


def test_work_that_outlives_its_request_has_traces_of_its_own(source: tuple[OwnSpans, Callable[[], list[Facts]]]) -> None:
    """A consumer that the first request has started does not put all it does for ever into that one's trace."""
    tracing = Tracing(ratio=1.0, spans=source[0])
    first, span = tracing.begin(name="GET", request_id="", parent=None)
    request_var.set(first)
    later, agent = tracing.begin(name="later", request_id="", parent=None, local=True)
    request_var.set(None)
    assert first.trace_id != later.trace_id
    assert span is not None
    assert agent is not None
    agent.leave()
    span.leave()


@pytest.mark.parametrize("sampled", [True, False])
def test_what_the_application_attaches_and_forgets_ends_with_the_request(
    source: tuple[OwnSpans, Callable[[], list[Facts]]],
    sampled: bool,  # noqa: FBT001 - a table
) -> None:
    """Baggage of one request is not there in the next one of its thread."""
    tracing = Tracing(ratio=0.0, spans=source[0])
    _, span = tracing.begin(name="GET", request_id="", parent=Parent(TRACE, SPAN, sampled=sampled))
    assert span is not None
    context.attach(baggage.set_baggage("user", "one"))
    span.leave()
    assert baggage.get_all() == {}
    assert not trace.get_current_span().get_span_context().is_valid


def test_outside_a_request_the_ratio_decides(source: tuple[OwnSpans, Callable[[], list[Facts]]]) -> None:
    """At a ratio of 0 a root is not recorded, nor is what hangs under it."""
    spans, told = source
    root = spans.internal(name="job", attributes={}, attach=True)
    spans.client(name="chat", attributes={}).end(name="chat", attributes={}, error_type="")
    root.end(name="job", attributes={}, error_type="")
    root.leave()
    assert told() == []
    assert not root.recorded


def test_the_applications_spans_are_children_of_ours() -> None:
    """A span made with OpenTelemetry's API hangs under the current one of ours, recorded as that is."""
    spans, finished, provider = _sources(ratio=0.0)
    server = spans.server(name="GET", ids=IDS, parent=None)
    trace.get_current_span().set_attribute("app", "said")
    sdk = OtelSpans(provider).client(name="theirs", attributes={})
    sdk.end(name="theirs", attributes={}, error_type="")
    assert sdk.ids[0] == TRACE
    assert sdk.ids[2]
    server.end(name="GET", attributes={}, error_type="")
    server.leave()
    assert finished[0].facts().attributes == {"app": "said"}
