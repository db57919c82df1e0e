"""The agent in front of an OpenAI-compatible server, both real processes of HTTP on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.agents import RunningAgent, running_agent
from tests.support.openai_server import FakeOpenAI, fake_openai


@contextmanager
def _pair(folder: Path) -> Iterator[tuple[RunningAgent, FakeOpenAI]]:
    with fake_openai() as upstream:
        (folder / "config.yaml").write_text(
            f"llm: {{provider: openai, model: m-1, base_url: '{upstream.base_url}', timeout: 2s, retry: {{max_wait: 0}}}}\n"
        )
        with running_agent(folder, environ={"SAGE_LLM_API_KEY": "sk-test"}) as agent:
            yield agent, upstream


def _ask(agent: RunningAgent, text: str, *, path: str = "/v1/messages") -> httpx.Response:
    return httpx.post(agent.url + path, json={"parts": [{"kind": "text", "text": text}]}, timeout=10)


def test_the_answer_and_its_usage_come_from_upstream(tmp_path: Path) -> None:
    """The server is asked with the configured model and key, and its answer and usage are passed on."""
    with _pair(tmp_path) as (agent, upstream):
        answer = _ask(agent, "hi").raise_for_status().json()
    assert answer["parts"] == [{"kind": "text", "text": "Hello from upstream"}]
    assert answer["metadata"] == {"model": "m-1", "usage": {"input_tokens": 11, "output_tokens": 5}}
    assert upstream.asked[0]["model"] == "m-1"
    assert upstream.headers[0]["authorization"] == "Bearer sk-test"
    assert upstream.headers[0][":line"] == "POST /v1/chat/completions HTTP/1.1"


@pytest.mark.parametrize(
    ("prompt", "status", "error_type", "retry_after"),
    [
        ("rate limit", 429, "rate_limited", "7"),
        ("broken", 502, "server_error", None),
        ("overloaded", 503, "unavailable", "9"),
        ("key", 502, "auth", None),
        ("malformed", 502, "server_error", None),
        ("hang up", 503, "unavailable", "1"),
        ("slow", 504, "timeout", None),
    ],
)
def test_upstream_failures_have_their_status(tmp_path: Path, prompt: str, status: int, error_type: str, retry_after: str | None) -> None:
    """Each way an upstream fails is told apart for the caller, without passing on its words."""
    with _pair(tmp_path) as (agent, _):
        response = _ask(agent, prompt)
        streamed = _ask(agent, prompt, path="/v1/messages/stream") if prompt != "malformed" else response
    assert (response.status_code, response.json()["error"]["type"]) == (status, error_type)
    assert response.headers.get("retry-after") == retry_after
    assert (streamed.status_code, streamed.json()["error"]["type"]) == (status, error_type)


def test_a_stream_is_passed_on(tmp_path: Path) -> None:
    """Upstream's pieces become message events, its usage the end."""
    with _pair(tmp_path) as (agent, _):
        text = _ask(agent, "hi", path="/v1/messages/stream").text
    blocks = [block.split("\n") for block in text.strip().split("\n\n")]
    assert [block[0] for block in blocks] == ["event: message"] * 3 + ["event: done"]
    assert json.loads(blocks[-1][1].removeprefix("data: "))["metadata"]["usage"] == {"input_tokens": 11, "output_tokens": 5}


def test_a_stream_that_breaks_off_ends_in_an_error_event(tmp_path: Path) -> None:
    """A failure after the first piece is an `error` event in the 200 answer, and no `done` follows."""
    with _pair(tmp_path) as (agent, _):
        response = _ask(agent, "break off", path="/v1/messages/stream")
    names = [line for line in response.text.split("\n") if line.startswith("event: ")]
    assert response.status_code == 200
    assert names == ["event: message"] * 3 + ["event: error"]
    assert '"type":"server_error"' in response.text


def test_a_caller_that_leaves_cancels_the_upstream_call(tmp_path: Path) -> None:
    """When the caller hangs up, the connection to the model is closed long before its timeout."""
    with _pair(tmp_path) as (agent, upstream):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{agent.url}/v1/messages", json={"parts": [{"kind": "text", "text": "slow"}]}, timeout=0.3)
        assert upstream.left.wait(1.0)
        assert _ask(agent, "hi").status_code == 200
