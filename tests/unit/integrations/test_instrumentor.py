from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import StatusCode

import sage_obs
from sage_obs.errors import SageObsError
from sage_obs.integrations.base import load
from sage_obs.integrations.client_spans import ClientSpans
from sage_obs.integrations.instrumentor import InstrumentorIntegration
from sage_obs.tracing.active import Tracing, use
from sage_obs.tracing.otel import OtelSpans

Start = Callable[..., sage_obs.Handle]
DEAD = "http://127.0.0.1:9"
NAMES = ("psycopg", "asyncpg", "sqlalchemy", "redis")


@pytest.fixture
def exported() -> Iterator[Callable[[], list[ReadableSpan]]]:
    """What the layer's provider has exported."""
    exporter, provider = (
        InMemorySpanExporter(),
        TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False),
    )  # the layer decides, whoever else is asked
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    use(Tracing(ratio=1.0, spans=OtelSpans(provider)))
    yield lambda: list(exporter.get_finished_spans())
    use(Tracing())
    provider.shutdown()


def _tracer(**kind: bool) -> tuple[ClientSpans, trace.Tracer]:
    spans = ClientSpans(**kind)
    spans.on = True
    return spans, spans.get_tracer("an.instrumentor", "1")


def test_without_spans_there_is_nothing_to_do(instrument: Start) -> None:
    """Found or asked for, an integration of a client is off where no endpoint is set, and that is nobody's error."""
    for libraries in (None, NAMES):
        status = instrument(libraries=libraries).status()
        assert {str(status[name]) for name in NAMES} == {"off: no spans are made, as there is no endpoint for them"}
    assert str(instrument(disable=["traces"]).status()["redis"]) == "off: traces are off"


def test_a_missing_instrumentor_is_named_with_its_remedy(instrument: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that is found says so in its status and leaves the others alone; one that is asked for is an error."""
    real = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> Any:
        return None if name == "opentelemetry.instrumentation.redis" else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    said = "opentelemetry-instrumentation-redis is not installed. Install it: pip install 'sage-obs[clients]'"
    status = instrument(traces_endpoint=DEAD).status()
    assert str(status["redis"]) == f"off: {said}"
    assert status["psycopg"].on
    with pytest.raises(SageObsError, match="clients") as raised:
        instrument(traces_endpoint=DEAD, libraries=["redis"])
    assert str(raised.value) == said


def test_an_instrumentor_whose_module_is_just_being_imported_is_somebody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing it imports the library, which is when we would install: who imports it is going to use it."""
    integration = load("redis")
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.redis", ModuleType("half"))
    integration.install()
    assert isinstance(integration, InstrumentorIntegration)
    assert integration._instrumentor is None
    integration.uninstall()


def _call(tracer: trace.Tracer) -> None:
    """What an instrumentor may say of a call, which fails."""
    with tracer.start_as_current_span("SELECT'hunter2'", attributes={"db.statement": "SELECT 'hunter2'"}) as span:
        span.set_attribute("db.statement.parameters", "('hunter2',)")
        span.set_attribute("db.query.parameter.0", "hunter2")
        span.set_attribute("redis.search.xdoc_1.name", "hunter2")
        span.set_attributes({"db.system": "postgresql", "db.user": "me", "server.address": "postgres://me:hunter2@host"})
        span.add_event("hunter2")
        span.add_link(trace.INVALID_SPAN_CONTEXT)
        span.update_name("SELECT 7")
        raise KeyError("hunter2")


def test_a_span_has_where_a_call_goes_and_not_with_what_nor_what_came_back(exported: Callable[[], list[ReadableSpan]]) -> None:
    """Parameters, documents, events, links and messages of exceptions are left out; names and statements have no values."""
    _, tracer = _tracer()
    with pytest.raises(KeyError):
        _call(tracer)
    (found,) = exported()
    assert found.name == "SELECT ?"
    assert dict(found.attributes or {}) == {
        "db.statement": "SELECT ?",
        "db.system": "postgresql",
        "db.user": "me",
        "server.address": "postgres://me:[REDACTED]@host",
        "error.type": "KeyError",
    }
    assert (found.status.status_code, found.status.description) == (StatusCode.ERROR, None)
    assert not found.events
    assert not found.links


def test_a_statement_that_is_passed_on_has_one_span(exported: Callable[[], list[ReadableSpan]]) -> None:
    """While the upper library's is open the lower makes none; one that was never ended keeps nothing from the next request."""
    _, above = _tracer(covers=True)
    _, below = _tracer(yields=True)
    upper = above.start_span("upper")
    with below.start_as_current_span("covered") as lower:
        assert not lower.is_recording()
    upper.end()
    with below.start_as_current_span("alone"):
        pass
    above.start_span("never ended")
    with trace.use_span(trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1)))):
        below.start_span("next request").end()
    assert [span.name for span in exported()] == ["upper", "alone", "next request"]
    above.start_span("last").end()


def test_what_nobody_would_see_is_not_begun_and_leaves_the_current_span(exported: Callable[[], list[ReadableSpan]]) -> None:
    """Below an unsampled span, after uninstall and without the layer's spans a call has none, and sees the span around it."""
    spans, tracer = _tracer()
    around = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(0)))
    with trace.use_span(around), tracer.start_as_current_span("unsampled") as span:
        assert not span.is_recording()
        assert trace.get_current_span() is around
    spans.on = False
    assert not tracer.start_span("off").is_recording()
    spans.on = True
    use(Tracing())
    assert not tracer.start_span("no spans").is_recording()
    assert exported() == []
