from __future__ import annotations

from collections.abc import Callable

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import sage_obs
from sage_obs.conventions import REQUESTS, REQUESTS_IN_FLIGHT
from sage_obs.tracing.otel import exporters, exports_otlp
from tests.support.metrics import value

Start = Callable[..., sage_obs.Handle]
ENDPOINT = "http://user:hunter2hunter2@127.0.0.1:1"
JOINED = "on: spans by the provider that is there, which exports them"


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> TracerProvider:
    """A provider that the application has set before."""
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return provider


def _exporting(provider: TracerProvider, exporter: SpanExporter) -> None:
    provider.add_span_processor(SimpleSpanProcessor(exporter))


def test_a_provider_that_exports_gets_the_requests_spans(instrument: Start, theirs: TracerProvider) -> None:
    """Without an endpoint of ours its exporter has them all, as its sampler says; the layer exports nothing."""
    exporter = InMemorySpanExporter()
    _exporting(theirs, exporter)
    assert str(instrument().status()["traces"]) == JOINED
    for _ in range(20):
        sage_obs.agent("a")(lambda: None)()
    assert [span.name for span in exporter.get_finished_spans()] == ["invoke_agent a"] * 20
    assert exporters(theirs) == [exporter], "nothing of ours was added"


def test_a_sampling_rate_of_ours_counts_with_their_provider(instrument: Start, theirs: TracerProvider) -> None:
    """What is set beats what their sampler would record."""
    exporter = InMemorySpanExporter()
    _exporting(theirs, exporter)
    instrument(sampling_rate=0.0)
    sage_obs.agent("a")(lambda: None)()
    assert exporter.get_finished_spans() == ()


def test_spans_are_not_sent_twice_to_where_opentelemetrys_variables_say(
    instrument: Start, theirs: TracerProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider with an OTLP exporter goes there already; with an endpoint of our own setting ours goes too."""
    _exporting(theirs, OTLPSpanExporter(endpoint="http://127.0.0.1:1"))
    assert exports_otlp(theirs)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", ENDPOINT)
    assert str(instrument().status()["traces"]) == JOINED
    why = instrument(traces_endpoint=f"{ENDPOINT}/ours").status()["traces"].why
    assert why.endswith("of new traces to http://user:[REDACTED]@127.0.0.1:1/ours")


def test_a_provider_that_exports_nothing_is_exported_from(
    instrument: Start, theirs: TracerProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets a processor of ours, and the endpoint is OpenTelemetry's."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", ENDPOINT)
    assert exporters(theirs) == []
    assert "of new traces to" in instrument().status()["traces"].why


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT}, "context only: OTEL_TRACES_EXPORTER is none"),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT}, "context only: OTEL_TRACES_EXPORTER is console"),
        ({"OTEL_TRACES_EXPORTER": "console,otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT}, "of new traces to"),
        ({"OTEL_TRACES_EXPORTER": "none", "SAGE_TRACING_ENDPOINT": ENDPOINT}, "of new traces to"),
        ({"OTEL_SDK_DISABLED": "TRUE", "SAGE_TRACING_ENDPOINT": ENDPOINT}, "context only: OTEL_SDK_DISABLED is set"),
    ],
    ids=["none", "another", "among others", "ours", "disabled"],
)
def test_opentelemetrys_variables_speak_for_its_own_endpoint(
    instrument: Start, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], why: str
) -> None:
    """Its exporter variable keeps spans from its endpoint and not from ours; its switch is for all."""
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    status = instrument().status()["traces"]
    assert status.on
    assert why in status.why


def test_a_span_processor_that_raises_leaves_no_request_in_flight(
    instrument: Start, theirs: TracerProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is counted, and the error is the telemetry's."""

    class Raising(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise ValueError(span.name)

    errors: list[str] = []
    monkeypatch.setattr("sage_obs.genai.agents.internal_error", lambda component, _: errors.append(component))
    _exporting(theirs, InMemorySpanExporter())
    theirs.add_span_processor(Raising())
    instrument()
    sage_obs.agent("a")(lambda: None)()
    assert (value(REQUESTS, outcome="success"), value(REQUESTS_IN_FLIGHT), errors) == (1, 0, ["genai"])
