from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from sage_obs import conventions
from sage_obs.errors import UnavailableError
from sage_obs.signals.prometheus import PrometheusSignals, expression
from sage_obs.slo import promql
from sage_obs.slo.triggers import ERROR_RATE, LATENCY, TRIGGERS, Measurement, Trigger
from sage_obs.slo.windows import DRILL, PRODUCTION, Windows

Rows = list[tuple[dict[str, str], str]]


def _vector(rows: Rows) -> dict[str, Any]:
    result = [{"metric": labels, "value": [1.0, value]} for labels, value in rows]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def _signals(handle: Callable[[httpx.Request], httpx.Response]) -> PrometheusSignals:
    return PrometheusSignals("http://prometheus/", DRILL, client=httpx.Client(transport=httpx.MockTransport(handle)), clock=lambda: 1000.0)


def _answering(rows: Callable[[str], Rows]) -> tuple[PrometheusSignals, list[httpx.Request]]:
    """A Prometheus that answers each query with `rows(query)`, and the requests it got."""
    requests: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, json=_vector(rows(request.url.params["query"])))

    return _signals(handle), requests


def _labels(version: str = "1.0.0", job: str = conventions.JOB) -> dict[str, str]:
    return {"job": job, "version": version}


def test_recorded_series_are_read_where_there_are_any() -> None:
    """One query for the value, one for the samples, for the job that is looked after."""
    found, requests = _answering(lambda query: [(_labels(), "0.25" if ":value" in query else "100"), (_labels("1.1.0"), "7")])
    assert found.measure(ERROR_RATE, version="1.0.0") == Measurement(0.25, 100.0)
    assert {request.url.params["query"] for request in requests} == {
        f'{promql.recorded(ERROR_RATE, what)}{{job="{conventions.JOB}"}}' for what in ("value", "samples")
    }


def test_without_the_rules_the_expressions_behind_them_are_evaluated() -> None:
    """The recorded series are empty, so the raw expressions answer; other jobs' rows are not ours."""
    found, requests = _answering(lambda query: [] if query.startswith("job_") else [(_labels(), "0.5"), (_labels(job="other"), "1")])
    assert found.measure(ERROR_RATE, version="1.0.0") == Measurement(0.5, 0.5)
    assert len(requests) == 4


@pytest.mark.parametrize("windows", [PRODUCTION, DRILL], ids=["production", "drill"])
@pytest.mark.parametrize("what", ["value", "samples"])
@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda one: one.slug)
def test_a_raw_expression_needs_no_recorded_series(trigger: Trigger, what: str, windows: Windows) -> None:
    """None of the names that only exist with the rules is left in it."""
    names = {value for name, value in vars(conventions).items() if name.startswith("RECORD_")}
    text = expression(trigger, what, windows)
    assert not any(name in text for name in names)
    assert not re.search(r"job\w*:sage", text)


@pytest.mark.parametrize("value", ["NaN", "+Inf"])
def test_what_is_no_number_is_no_value(value: str) -> None:
    """NaN and infinity are no data."""
    found, _ = _answering(lambda query: [(_labels(), value if ":value" in query else "100")])
    assert found.measure(LATENCY, version="1.0.0") == Measurement(None, 100.0)


def test_nothing_is_no_data() -> None:
    """Empty answers give None, not zero."""
    found, _ = _answering(lambda _: [])
    assert found.measure(ERROR_RATE, version="1.0.0") == Measurement(None, None)
    assert found.versions() == ()
    assert found.facts().requests_per_second is None


def test_several_series_where_one_is_expected_are_an_error() -> None:
    """Replicas that were not deduplicated would be judged at random."""
    found, _ = _answering(lambda _: [({**_labels(), "replica": "a"}, "1"), ({**_labels(), "replica": "b"}, "2")])
    with pytest.raises(UnavailableError, match="2 series"):
        found.measure(ERROR_RATE, version="1.0.0")


def test_the_release_that_started_last_comes_first() -> None:
    """By start time, at the time asked for."""
    found, requests = _answering(lambda _: [({"version": "1.0.0"}, "100"), ({"version": "1.1.0"}, "200"), ({}, "300")])
    assert found.versions(at=990.5) == ("1.1.0", "1.0.0")
    assert requests[0].url.params["time"] == "990.500"


def test_facts_are_counted_over_the_rate_window() -> None:
    """Requests a second, failures by kind, and the provider's failures with how many calls they rest on."""

    def rows(query: str) -> Rows:
        if conventions.REQUESTS.name in query:
            return [({}, "400")]
        if conventions.LLM_CALLS.name in query:
            return [({"provider": "p"}, "200")]
        if conventions.LLM_ERRORS.name in query:
            return [({"provider": "p", "error_type": "timeout"}, "50"), ({"provider": "idle", "error_type": "timeout"}, "0")]
        return [({"error_type": "timeout"}, "30"), ({"error_type": "internal"}, "10"), ({"error_type": "auth"}, "0")]

    facts = _answering(rows)[0].facts()
    assert facts.requests_per_second == 40.0
    assert [(one.error_type, one.share) for one in facts.errors] == [("timeout", 0.75), ("internal", 0.25)]
    assert [(one.provider, one.share, one.calls) for one in facts.providers] == [("p", 0.25, 200.0)]


def _result(row: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, json={"status": "success", "data": {"result": [row]}})


def _raise(error: Exception) -> Callable[[httpx.Request], httpx.Response]:
    def handle(request: httpx.Request) -> httpx.Response:
        del request
        raise error

    return handle


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        (_raise(httpx.ConnectError("[Errno 111] Connection refused")), "http://prometheus/api/v1/query (connection refused)"),
        (_raise(httpx.ReadTimeout("slow")), "did not answer within 5 s"),
        (lambda _: httpx.Response(200, text="<html>"), "does not answer as Prometheus does (status 200, no JSON)"),
        (lambda _: httpx.Response(404, json={"detail": "x"}), "does not answer as Prometheus does (status 404)"),
        (lambda _: httpx.Response(400, json={"status": "error", "error": "parse error"}), "refused a query: parse error"),
        (lambda _: httpx.Response(503, json={"status": "error", "error": "query timed out"}), "refused a query: query timed out"),
        (lambda _: _result({"metric": {}}), "its answer has another form"),
        (lambda _: _result({"metric": {}, "value": [1, "many"]}), "its answer has another form"),
    ],
    ids=["refused", "timeout", "not json", "not prometheus", "bad query", "overloaded", "no value", "no number"],
)  # fmt: skip
def test_an_unusable_answer_is_an_error_that_says_what_to_do(handle: Callable[[httpx.Request], httpx.Response], message: str) -> None:
    """What happened, where, and the way out; never a verdict."""
    with pytest.raises(UnavailableError) as caught:
        _signals(handle).versions()
    assert message in str(caught.value)
    assert caught.value.hint


def test_the_snapshot_holds_the_range_of_every_trigger() -> None:
    """As evidence, the recorded series over the time asked for."""
    found, requests = _answering(lambda query: [({"query": query}, "1")])
    kept = json.loads(found.snapshot(seconds=30))
    assert set(kept["series"]) == {promql.recorded(one, what) for one in TRIGGERS for what in ("value", "samples")}
    assert (requests[0].url.params["start"], requests[0].url.params["end"]) == ("970.000", "1000.000")
