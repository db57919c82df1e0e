from __future__ import annotations

import threading
import time
from typing import cast

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from sage_obs.conventions import EXPORT_FAILURES, SPANS_DROPPED
from sage_obs.metrics.store import Store
from sage_obs.tracing.active import Tracing
from sage_obs.tracing.context import Parent
from sage_obs.tracing.export import ExportProcessor, traces_url
from sage_obs.tracing.otel import OtelSpans, RequestSampler, provider_for, switch_to
from sage_obs.tracing.post import Answer

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def _provider(ratio: float = 0.0) -> tuple[TracerProvider, InMemorySpanExporter]:
    provider, exporter = TracerProvider(sampler=RequestSampler(ratio), shutdown_on_exit=False), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


@pytest.mark.parametrize("parent", [None, Parent(TRACE, SPAN, sampled=True)], ids=["root", "child"])
def test_what_the_layer_samples_is_recorded_whatever_the_ratio(parent: Parent | None) -> None:
    """The decision is made once: a sampled request has its span even at a ratio of 0 for everything else."""
    provider, exporter = _provider()
    tracing = Tracing(ratio=1.0, propagate=True, spans=OtelSpans(provider))
    request, span = tracing.begin(name="GET", request_id="r", parent=parent)
    assert span is not None
    assert request.sampled
    assert tracing.outgoing() == f"00-{request.trace_id}-{request.span_id}-01"
    span.end(name="GET /x", attributes={"a": 1}, error_type="timeout")
    span.leave()
    [finished] = exporter.get_finished_spans()
    assert finished.name == "GET /x"
    assert finished.attributes == {"a": 1, "error.type": "timeout"}
    assert not finished.status.is_ok
    assert (request.trace_id == TRACE) is (parent is not None)
    assert not trace.get_current_span().get_span_context().is_valid


def test_an_unsampled_request_builds_no_span_and_its_children_are_not_recorded() -> None:
    """The application's own spans inside it belong to its trace and stay unsampled."""
    provider, exporter = _provider(ratio=1.0)
    tracing = Tracing(ratio=1.0, propagate=True, spans=OtelSpans(provider))
    request, span = tracing.begin(name="GET", request_id="r", parent=Parent(TRACE, SPAN, sampled=False))
    with provider.get_tracer("theirs").start_as_current_span("inner") as inner:
        assert f"{inner.get_span_context().trace_id:032x}" == request.trace_id == TRACE
        assert tracing.outgoing().endswith("-00")
    assert span is not None
    span.end(name="GET /x", attributes={}, error_type="")
    span.leave()
    assert not exporter.get_finished_spans()


def test_the_applications_spans_are_children_of_a_sampled_request() -> None:
    """A span made with the OpenTelemetry API inside a request hangs under the request's."""
    provider, exporter = _provider()
    tracing = Tracing(ratio=1.0, spans=OtelSpans(provider))
    request, span = tracing.begin(name="GET", request_id="r", parent=None)
    with provider.get_tracer("theirs").start_as_current_span("inner"):
        pass
    assert span is not None
    span.leave()
    [inner] = exporter.get_finished_spans()
    assert inner.parent is not None
    assert f"{inner.parent.span_id:016x}" == request.span_id


def test_the_applications_provider_is_reused_and_switched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that is there already gets one processor, once, which can be switched off again."""
    theirs, exporter = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False), InMemorySpanExporter()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: theirs)
    for _ in range(3):
        assert provider_for(Resource.create({}), ratio=0.1) is theirs
    switch_to(SimpleSpanProcessor(exporter))
    theirs.get_tracer("x").start_span("seen").end()
    switch_to(None)
    theirs.get_tracer("x").start_span("unseen").end()
    assert [span.name for span in exporter.get_finished_spans()] == ["seen"]


class _Failing:
    """An endpoint that fails in one of two ways."""

    def __init__(self, *, raises: bool) -> None:
        self._raises = raises

    def post(self, body: bytes) -> Answer:
        """Fail."""
        del body
        if self._raises:
            raise ConnectionError("gone")
        return Answer(taken=False)

    def hurry(self) -> None:
        """Nothing is tried again anyway."""

    close = restart_after_fork = hurry


class _Hanging(_Failing):
    """Takes a batch and keeps it until it is released."""

    def __init__(self) -> None:
        super().__init__(raises=False)
        self.taken, self.release = threading.Event(), threading.Event()

    def post(self, body: bytes) -> Answer:
        """Wait."""
        del body
        self.taken.set()
        self.release.wait()
        return Answer(taken=True)


class _Rejecting(_Failing):
    """Takes a batch but for two of its spans."""

    def post(self, body: bytes) -> Answer:
        """Say so."""
        del body
        return Answer(taken=True, rejected=2)


def _end_spans(processor: ExportProcessor, count: int) -> None:
    provider = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    for _ in range(count):
        provider.get_tracer("x").start_span("one").end()


@pytest.mark.parametrize("raises", [False, True])
def test_a_failed_export_is_counted_with_its_spans(raises: bool) -> None:  # noqa: FBT001 - two cases
    """Whether an exporter says so or raises, the failure and the lost spans are on the counters."""
    store = Store()
    processor = ExportProcessor(_Failing(raises=raises), store, {})
    _end_spans(processor, 3)
    assert processor.close(5)
    assert store.cell(SPANS_DROPPED).value == 3
    assert store.cell(EXPORT_FAILURES, "traces").value >= 1


def test_spans_that_the_endpoint_rejects_are_counted() -> None:
    """A partial success is no failed export, but its losses are losses."""
    store = Store()
    processor = ExportProcessor(_Rejecting(raises=False), store, {})
    _end_spans(processor, 3)
    assert processor.close(5)
    assert store.cell(SPANS_DROPPED).value == 2
    assert store.cell(EXPORT_FAILURES, "traces").value == 0


class _Keeping(_Failing):
    """Takes everything."""

    def __init__(self) -> None:
        super().__init__(raises=False)
        self.names: list[str] = []
        self.connections = 1

    def post(self, body: bytes) -> Answer:
        """Keep the names."""
        request = ExportTraceServiceRequest.FromString(body)
        self.names += [span.name for group in request.resource_spans for scope in group.scope_spans for span in scope.spans]
        return Answer(taken=True)

    def restart_after_fork(self) -> None:
        """Count it."""
        self.connections += 1


def test_a_span_that_cannot_be_told_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """One with a time in seconds is lost, counted, and said to be an error; those beside it arrive."""
    store, endpoint, errors = Store(), _Keeping(), list[str]()
    monkeypatch.setattr("sage_obs.tracing.export.internal_error", lambda component, _: errors.append(component))
    processor = ExportProcessor(endpoint, store, {})
    provider = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    for name in ("one", "bad", "two"):
        with provider.get_tracer("x").start_as_current_span(name) as span:
            span.add_event("e", timestamp=cast("int", time.time()) if name == "bad" else None)
    assert processor.close(5)
    assert (endpoint.names, store.cell(SPANS_DROPPED).value, errors) == (["one", "two"], 1, ["traces"])


def test_a_forked_child_connects_anew() -> None:
    """The parent's connection is the parent's."""
    endpoint = _Keeping()
    processor = ExportProcessor(endpoint, Store(), {})
    processor.restart_after_fork()
    assert endpoint.connections == 2
    assert processor.close(5)


def test_spans_over_the_queues_capacity_are_counted_and_hold_nobody_up() -> None:
    """While an export hangs, what no longer fits is dropped at once."""
    store, exporter = Store(), _Hanging()
    processor = ExportProcessor(exporter, store, {})
    _end_spans(processor, 1)
    processor.force_flush(1)
    assert exporter.taken.wait(10)
    _end_spans(processor, 2148)
    assert store.cell(SPANS_DROPPED).value in {100, 101}
    assert not processor.close(0.01)
    exporter.release.set()
    assert store.cell(SPANS_DROPPED).value >= 2148


@pytest.mark.parametrize(
    ("endpoint", "base", "url"),
    [
        ("http://h:4318", False, "http://h:4318/v1/traces"),
        ("http://h:4318/", True, "http://h:4318/v1/traces"),
        ("http://h/otlp", True, "http://h/otlp/v1/traces"),
        ("http://h/api/v1/traces", False, "http://h/api/v1/traces"),
    ],
)
def test_the_path_of_the_endpoint(endpoint: str, base: bool, url: str) -> None:  # noqa: FBT001 - a table
    """A bare endpoint or a base gets the protocol's path; a full one is used as it is."""
    assert traces_url(endpoint, base=base) == url


def test_the_span_of_an_unsampled_request_can_be_printed() -> None:
    """Applications log the current span, whatever it is."""
    spans = OtelSpans(TracerProvider(shutdown_on_exit=False))
    span = spans.unrecorded(TRACE, SPAN)
    shown = repr(trace.get_current_span())
    span.leave()
    assert TRACE in shown
