"""What the agent tells about itself: metrics, health and log lines under known traffic."""

from __future__ import annotations

from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from sage_obs.conventions import (
    ERRORS,
    EXPERIENCE,
    HEALTH_STATUS,
    LLM_CALLS,
    LLM_ERRORS,
    LLM_TOKENS,
    REQUEST_DURATION,
    REQUEST_OVERHEAD,
    REQUESTS,
    REQUESTS_IN_FLIGHT,
    Metric,
    Outcome,
)
from tests.support.agents import BODY, RunningAgent, running_agent
from tests.support.openai_server import fake_openai

_PLAIN, _STREAM = "POST /v1/messages", "POST /v1/messages/stream"


class Scrape:
    """One scrape of /metrics, asked by convention."""

    def __init__(self, agent: RunningAgent) -> None:
        text = httpx.get(f"{agent.ops_url}/metrics", timeout=10).raise_for_status().text
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def total(self, metric: Metric, *, suffix: str = "", **labels: str) -> float:
        """The sum over the series that have these labels."""
        name = metric.name + suffix
        return sum(one.value for one in self._samples if one.name == name and labels.items() <= one.labels.items())

    def has(self, metric: Metric, **labels: str) -> bool:
        """Whether there is such a series at all."""
        return any(one.name == metric.name and labels.items() <= one.labels.items() for one in self._samples)


def test_the_five_metrics_are_right_under_known_traffic(tmp_path: Path) -> None:
    """Successes, failures, failures inside a 200 answer and bad requests are counted one by one, tokens as they were billed."""
    environ = {"SAGE_LLM_SCRIPTED_ERROR_RATE": str(1 / 3), "SAGE_LLM_SCRIPTED_LATENCY": "0", "SAGE_AGENT_ID": "a-7"}
    with running_agent(tmp_path, environ=environ) as agent, httpx.Client(base_url=agent.url) as client:
        answers = [client.post("/v1/messages", json=BODY) for _ in range(30)]
        streams = [client.post("/v1/messages/stream", json=BODY) for _ in range(6)]
        for _ in range(3):
            client.post("/v1/messages", content=b"{", headers={"content-type": "application/json"})
        scrape = Scrape(agent)
    assert {stream.status_code for stream in streams} == {200}
    assert scrape.total(REQUESTS, operation=_PLAIN, outcome=Outcome.SUCCESS, agent_id="a-7") == 20
    assert scrape.total(REQUESTS, operation=_PLAIN, outcome=Outcome.SERVER_ERROR) == 10
    assert scrape.total(REQUESTS, operation=_PLAIN, outcome=Outcome.CLIENT_ERROR) == 3
    assert scrape.total(REQUESTS, operation=_STREAM, outcome=Outcome.SUCCESS) == 4
    assert scrape.total(REQUESTS, operation=_STREAM, outcome=Outcome.SERVER_ERROR) == 2
    assert scrape.total(REQUESTS) == 39
    assert scrape.total(REQUEST_DURATION, suffix="_count", operation=_PLAIN) == 33
    assert scrape.total(REQUEST_DURATION, suffix="_count", operation=_STREAM) == 6
    assert scrape.total(ERRORS, error_type="server_error", agent_id="a-7") == 12
    assert scrape.total(ERRORS, error_type="invalid_request") == 3
    assert scrape.total(ERRORS) == 15
    assert scrape.total(LLM_CALLS, provider="scripted", model="scripted", outcome="success") == 24
    assert scrape.total(LLM_CALLS) == 36
    assert scrape.total(LLM_ERRORS, provider="scripted", error_type="server_error") == 12
    usages = [answer.json()["metadata"]["usage"] for answer in answers if answer.status_code == 200]
    assert scrape.total(LLM_TOKENS, type="input") == 2 * 24
    assert scrape.total(LLM_TOKENS, type="output") == usages[0]["output_tokens"] * 24
    assert scrape.total(EXPERIENCE, outcome="frustrated") == 12
    assert scrape.total(REQUESTS_IN_FLIGHT) == 0


def test_upstream_refusals_and_full_queues_are_rejections(tmp_path: Path) -> None:
    """A 429 passed through and a full queue are `rejected`, not failures of the release; a wrong key is one."""
    with fake_openai() as upstream:
        upstream_only = f"provider: openai, model: m-1, base_url: '{upstream.base_url}', retry: {{max_wait: 0}}"
        (tmp_path / "config.yaml").write_text(f"llm: {{{upstream_only}}}\n")
        with running_agent(tmp_path) as agent:
            for prompt in ("rate limit", "key", "hi"):
                httpx.post(f"{agent.url}/v1/messages", json={"parts": [{"kind": "text", "text": prompt}]})
            scrape = Scrape(agent)
    assert scrape.total(REQUESTS, outcome=Outcome.REJECTED) == 1
    assert scrape.total(REQUESTS, outcome=Outcome.SERVER_ERROR) == 1
    assert scrape.total(REQUESTS, outcome=Outcome.SUCCESS) == 1
    assert scrape.total(ERRORS, error_type="rate_limited") == 1
    assert scrape.total(ERRORS, error_type="auth") == 1
    assert scrape.total(LLM_ERRORS, provider="openai", model="m-1", error_type="rate_limited") == 1
    assert scrape.total(LLM_TOKENS, provider="openai", type="input") == 11
    assert upstream.headers[0]["traceparent"].count("-") == 3


def test_a_full_queue_is_a_rejection(tmp_path: Path) -> None:
    """Turning a caller away at capacity is `rejected` with `queue_full`."""
    environ = {"SAGE_MAX_CONCURRENT": "1", "SAGE_QUEUE_SIZE": "0", "SAGE_LLM_SCRIPTED_LATENCY": "1s"}
    with running_agent(tmp_path, environ=environ) as agent:
        with httpx.stream("POST", f"{agent.url}/v1/messages/stream", json=BODY) as first:
            assert httpx.post(f"{agent.url}/v1/messages", json=BODY).status_code == 503
            first.read()
        scrape = Scrape(agent)
    assert scrape.total(REQUESTS, outcome=Outcome.REJECTED) == 1
    assert scrape.total(ERRORS, error_type="queue_full") == 1
    assert scrape.total(REQUESTS, outcome=Outcome.SERVER_ERROR) == 0


def test_a_caller_that_leaves_is_cancelled(tmp_path: Path) -> None:
    """A request whose caller hung up is neither a success nor a failure."""
    with running_agent(tmp_path, environ={"SAGE_LLM_SCRIPTED_LATENCY": "5s"}) as agent:
        try:
            httpx.post(f"{agent.url}/v1/messages", json=BODY, timeout=0.3)
        except httpx.ReadTimeout:
            httpx.post(f"{agent.url}/nowhere")
        scrape = Scrape(agent)
    assert scrape.total(REQUESTS, outcome=Outcome.CANCELLED) == 1
    assert scrape.total(REQUESTS, outcome=Outcome.SERVER_ERROR) == 0
    assert scrape.total(LLM_CALLS, outcome="success") == 0


def test_overhead_leaves_the_model_out(tmp_path: Path) -> None:
    """Scripted overhead is in the overhead histogram, scripted latency is not."""
    environ = {"SAGE_LLM_SCRIPTED_LATENCY": "300ms", "SAGE_LLM_SCRIPTED_OVERHEAD": "50ms"}
    with running_agent(tmp_path, environ=environ) as agent:
        httpx.post(f"{agent.url}/v1/messages", json=BODY).raise_for_status()
        scrape = Scrape(agent)
    assert 0.05 <= scrape.total(REQUEST_OVERHEAD, suffix="_sum") < 0.3
    assert scrape.total(REQUEST_DURATION, suffix="_sum") >= 0.35


def test_health_answers_on_both_ports_as_the_guide_writes_it(tmp_path: Path) -> None:
    """Probes answer on the main and the operations port; none of them is counted as a request."""
    with running_agent(tmp_path) as agent:
        bodies = [httpx.get(f"{base}/health/{probe}") for base in (agent.url, agent.ops_url) for probe in ("live", "ready", "startup")]
        scrape = Scrape(agent)
    assert {body.status_code for body in bodies} == {200}
    assert [body.json()["name"] for body in bodies] == ["liveness", "readiness", "startup"] * 2
    assert scrape.total(REQUESTS) == 0
    assert scrape.has(HEALTH_STATUS, probe="readiness", check="llm")


def test_an_unready_agent_says_so(tmp_path: Path) -> None:
    """With the scripted fault readiness is 503 and liveness is not touched."""
    with running_agent(tmp_path, environ={"SAGE_LLM_SCRIPTED_UNREADY": "true"}) as agent:
        ready, live = httpx.get(f"{agent.url}/health/ready"), httpx.get(f"{agent.url}/health/live")
    assert (ready.status_code, ready.json()["status"]) == (503, "unhealthy")
    assert (live.status_code, live.json()["status"]) == (200, "healthy")


def test_a_request_is_one_line_of_json_with_its_id(tmp_path: Path) -> None:
    """The access line has the guide's keys, the caller's request id and the agent's id."""
    with running_agent(tmp_path, environ={"SAGE_AGENT_ID": "a-7"}) as agent:
        httpx.post(f"{agent.url}/v1/messages", json=BODY, headers={"x-request-id": "req-from-caller"}).raise_for_status()
    (line,) = [line for line in agent.lines() if line["message"].startswith("POST /v1/messages")]
    assert line["request_id"] == "req-from-caller"
    assert line["agent_id"] == "a-7"
    assert line["duration_ms"] > 0
    assert list(line)[:4] == ["timestamp", "level", "message", "agent_id"]
