"""Metrics by OTLP to a receiver that speaks the real protobuf: from one process, from forked children, and to nobody."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import sage_obs
from sage_obs.conventions import EXPORT_FAILURES, LLM_CALLS, LLM_TOKENS
from tests.support.metrics import value
from tests.support.otlp import Push, Receiver, dead_backend, receiver

Start = Callable[..., sage_obs.Handle]
CALLS = LLM_CALLS.name
DURATION, TOKENS = "gen_ai.client.operation.duration", "gen_ai.client.token.usage"


@pytest.fixture
def collector() -> Iterator[Receiver]:
    """A receiver."""
    with receiver() as found:
        yield found


def _ask(count: int = 1, **used: int) -> None:
    for _ in range(count):
        with sage_obs.llm_call("openai", "gpt-4o") as call:
            call.usage(input=used.get("input", 100), output=used.get("output", 20))


def _calls(push: Push) -> float:
    point: Any = push.point(CALLS, outcome="success")
    return 0.0 if point is None else float(point.as_double)


def test_what_was_counted_is_pushed_as_sums_gauges_and_histograms(instrument: Start, collector: Receiver) -> None:
    """A flush pushes cumulative monotonic sums, gauges and explicit histograms since the start, with the resource of the spans."""
    before = time.time_ns()
    handle = instrument("shop", version="1.2.3", metrics_endpoint=collector.url)
    assert str(handle.status()["push"]) == f"on: every 60 s to {collector.url}/v1/metrics"
    _ask(3)
    assert sage_obs.flush(10)
    (push,) = collector.pushes
    assert collector.paths == ["/v1/metrics"]
    assert (push.resource["service.name"], push.resource["service.version"], push.resource["sage.agent_id"]) == ("shop", "1.2.3", "a1")
    counted = push.metrics[CALLS].sum
    assert (counted.is_monotonic, counted.aggregation_temporality, _calls(push)) == (True, 2, 3.0)
    tokens: Any = push.point(LLM_TOKENS.name, type="input")
    assert (tokens.as_double, push.metrics[LLM_TOKENS.name].unit) == (300.0, "{token}")
    assert before <= tokens.start_time_unix_nano <= tokens.time_unix_nano <= time.time_ns()
    assert push.point("sage_build_info", version="1.2.3") in list(push.metrics["sage_build_info"].gauge.data_points)
    histogram: Any = push.point("sage_llm_api_call_duration_seconds")
    assert (histogram.count, sum(histogram.bucket_counts), len(histogram.bucket_counts)) == (3, 3, len(histogram.explicit_bounds) + 1)


def test_the_conventions_two_histograms_are_pushed_and_not_scraped(instrument: Start, collector: Receiver) -> None:
    """Duration and tokens have the advised bounds and attributes in the push, and are not on /metrics."""
    handle = instrument(metrics_endpoint=f"{collector.url}/v1/metrics", semconv="latest")
    _ask(input=100, output=20)
    with pytest.raises(TimeoutError), sage_obs.llm_call("openai", "gpt-4o"):
        raise TimeoutError
    assert sage_obs.flush(10)
    push = collector.pushes[-1]
    duration: Any = push.point(DURATION, error__type="timeout")
    assert list(duration.explicit_bounds) == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
    assert {one.key for one in duration.attributes} == {
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "error.type",
    }
    tokens: Any = push.point(TOKENS, gen_ai__token__type="input")  # noqa: S106 - no secret, a kind of token
    assert (tokens.count, tokens.sum, tokens.explicit_bounds[0], tokens.explicit_bounds[-1]) == (1, 100.0, 1.0, 67_108_864.0)
    assert (push.metrics[DURATION].unit, push.metrics[TOKENS].unit) == ("s", "{token}")
    assert b"gen_ai" not in _scraped(handle)


def test_no_credential_leaves_in_a_push(instrument: Start, collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The resource is what OpenTelemetry's variable says, without its secrets."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "db.password=hunter2,url=https://me:hunter2@host/,team=shop")
    instrument(metrics_endpoint=collector.url, disable=["traces"])
    assert sage_obs.flush(10)
    assert b"hunter2" not in collector.bodies[0]
    assert collector.pushes[0].resource["team"] == "shop"


def _scraped(handle: sage_obs.Handle) -> bytes:
    import httpx

    return httpx.get(f"http://127.0.0.1:{handle.metrics_port}/metrics").content


def test_the_last_counts_are_pushed_when_the_layer_stops(instrument: Start, collector: Receiver) -> None:
    """What was counted since the last push is not lost."""
    instrument(metrics_endpoint=collector.url)
    _ask(2)
    sage_obs.uninstrument()
    assert _calls(collector.pushes[-1]) == 2.0


def test_pushes_come_by_themselves(instrument: Start, collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTelemetry's interval, in milliseconds, is how often; its endpoint is taken as it is."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{collector.url}/mine/metrics")
    instrument()
    _ask()
    collector.wait_for(lambda pushes: len(pushes) >= 3 and _calls(pushes[-1]) == 1.0)
    assert set(collector.paths) == {"/mine/metrics"}


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({}, "no endpoint is set (SAGE_METRICS_ENDPOINT)"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, "no endpoint is set (SAGE_METRICS_ENDPOINT)"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://x", "OTEL_METRICS_EXPORTER": "none"}, "OTEL_METRICS_EXPORTER is none"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "the OTLP protocol is grpc"),
        ({"SAGE_METRICS_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, "OTEL_SDK_DISABLED is set"),
        ({"SAGE_METRICS_ENDPOINT": "http://x", "SAGE_METRICS_ENABLED": "0"}, "nothing to serve"),
    ],
)
def test_nothing_is_pushed_that_nobody_asked_for(
    instrument: Start, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], why: str
) -> None:
    """An endpoint for spans alone starts no push, and what keeps one off is said."""
    for name, text in environ.items():
        monkeypatch.setenv(name, text)
    status = instrument(disable=["traces"]).status()["push"]
    assert (status.on, status.why.startswith(why)) == (False, True), status


def test_the_base_endpoint_is_enough_where_the_exporter_is_named(
    instrument: Start, collector: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With OTEL_METRICS_EXPORTER=otlp metrics go to /v1/metrics under the endpoint of all signals."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{collector.url}/otlp/")
    instrument(disable=["traces"])
    assert sage_obs.flush(10)
    assert collector.paths == ["/otlp/v1/metrics"]


def test_each_process_pushes_what_it_has_counted_as_an_instance_of_its_own(instrument: Start, collector: Receiver) -> None:
    """A forked child begins at zero, with another instance id and its own start; together they are everything, once."""
    instrument(metrics_endpoint=collector.url)
    _ask(5)
    child = os.fork()
    if not child:
        _ask(2)
        os._exit(0 if sage_obs.flush(10) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert sage_obs.flush(10)
    theirs, ours = collector.pushes
    assert (_calls(theirs), _calls(ours)) == (2.0, 5.0)
    assert theirs.resource["service.instance.id"] != ours.resource["service.instance.id"]
    first: Any = ours.point(CALLS, outcome="success")
    second: Any = theirs.point(CALLS, outcome="success")
    assert first.start_time_unix_nano < second.start_time_unix_nano
    histogram: Any = theirs.point(DURATION)
    assert histogram.count == 2


@pytest.mark.parametrize("kind", ["refused", "blackhole"])
def test_a_dead_backend_delays_nothing(instrument: Start, kind: str) -> None:
    """A flush gives up in time, and stopping takes no longer than it may."""
    with dead_backend(kind) as url:
        instrument(metrics_endpoint=url, exit_timeout=0.5)
        began = time.monotonic()
        assert not sage_obs.flush(0.3)
        sage_obs.uninstrument()
        assert time.monotonic() - began < 2.0


def test_a_refusal_is_counted(instrument: Start, collector: Receiver) -> None:
    """An answer that is no success is a failed export of metrics."""
    instrument(metrics_endpoint=f"{collector.url}/refuse/v1/metrics")
    _ask()
    assert not sage_obs.flush(10)
    assert value(EXPORT_FAILURES, signal="metrics") == 1.0
    assert collector.pushes == []
