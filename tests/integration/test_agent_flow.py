"""What happens to a request on its way, in a real agent: conversations, answers given again, budgets, partial usage."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.agents import RunningAgent, running_agent
from tests.support.databases import redis_server
from tests.support.openai_server import FakeOpenAI, fake_openai

_MODEL = "gpt-4o"
"""Costs 2.50 and 10.00 US dollars for a million tokens: an answer of at most 1,024 tokens is at most about 1.03 cents."""


@contextmanager
def _pair(folder: Path, environ: Mapping[str, str] | None = None, *, name: str = "agent") -> Iterator[tuple[RunningAgent, FakeOpenAI]]:
    with fake_openai() as upstream, running_agent(folder, name=name, environ={**_towards(upstream), **(environ or {})}) as agent:
        yield agent, upstream


def _towards(upstream: FakeOpenAI) -> dict[str, str]:
    return {
        "SAGE_LLM_PROVIDER": "openai",
        "SAGE_LLM_MODEL": _MODEL,
        "SAGE_LLM_BASE_URL": upstream.base_url,
        "SAGE_LLM_RETRY_MAX_WAIT": "0",
    }


def _ask(agent: RunningAgent, text: str, *, stream: bool = False, headers: Mapping[str, str] | None = None, **more: Any) -> httpx.Response:
    path = "/v1/messages/stream" if stream else "/v1/messages"
    body = {"parts": [{"kind": "text", "text": text}], **more}
    return httpx.post(agent.url + path, json=body, headers=dict(headers or {}), timeout=20)


def _total(agent: RunningAgent, name: str, *labels: str) -> float:
    lines = httpx.get(f"{agent.ops_url}/metrics").text.splitlines()
    found = [line for line in lines if line.startswith(f"{name}{{") and all(label in line for label in labels)]
    return sum(float(line.rpartition(" ")[2]) for line in found)


def test_what_was_said_before_goes_along_and_is_nobody_elses(tmp_path: Path) -> None:
    """The model is told the system prompt and the turns of this conversation, in order, whichever way the answers were given."""
    with _pair(tmp_path, {"SAGE_LLM_SYSTEM_PROMPT": "Be brief.", "SAGE_SESSIONS_MAX_TURNS": "4"}) as (agent, upstream):
        for number, stream in enumerate((False, True, False)):
            _ask(agent, f"question {number}", stream=stream, contextId="c-1").raise_for_status()
        _ask(agent, "other", contextId="c-2").raise_for_status()
        _ask(agent, "alone").raise_for_status()
        _ask(agent, "broken", contextId="c-1")
        _ask(agent, "question 3", contextId="c-1").raise_for_status()
    said = [[(one["role"], one["content"]) for one in asked["messages"]] for asked in upstream.asked]
    system, answer = ("system", "Be brief."), ("assistant", "Hello from upstream")
    assert said[2] == [system, ("user", "question 0"), answer, ("user", "question 1"), answer, ("user", "question 2")]
    assert said[3] == [system, ("user", "other")]
    assert said[4] == [system, ("user", "alone")]
    assert said[-1] == [system, ("user", "question 1"), answer, ("user", "question 2"), answer, ("user", "question 3")]


def test_replicas_share_a_conversation_and_a_dead_store_is_said(tmp_path: Path) -> None:
    """The second replica knows what was said to the first; without the store a conversation is 503 and everything else goes on."""
    with redis_server() as url, fake_openai() as upstream:
        environ = {**_towards(upstream), "SAGE_DB_CONNECTION_STRING": url, "SAGE_STORAGE_TIMEOUT": "1s"}
        with running_agent(tmp_path, name="a", environ=environ) as first, running_agent(tmp_path, name="b", environ=environ) as second:
            _ask(first, "to the first", contextId="c").raise_for_status()
            _ask(second, "to the second", contextId="c").raise_for_status()
            assert [one["content"] for one in upstream.asked[-1]["messages"]] == ["to the first", "Hello from upstream", "to the second"]
            server = _listening_on(int(url.rpartition(":")[2].partition("/")[0]))
            os.kill(server, signal.SIGSTOP)  # it stays there and answers nobody
            lost = _ask(first, "and now", contextId="c")
            assert (lost.status_code, lost.json()["error"]["type"], lost.headers["retry-after"]) == (503, "unavailable", "1")
            assert _ask(first, "alone").status_code == httpx.codes.OK
            deadline = time.monotonic() + 10
            while (ready := httpx.get(f"{first.url}/health/ready")).json()["status"] != "degraded":
                assert time.monotonic() < deadline, ready.text
                time.sleep(0.1)
            assert ready.status_code == httpx.codes.OK
            assert httpx.get(f"{first.url}/health/live").json()["status"] == "healthy"
            assert "sage_agent_storage_operation_duration_seconds_count" in httpx.get(f"{first.ops_url}/metrics").text
            os.kill(server, signal.SIGCONT)


def _listening_on(port: int) -> int:
    """The process id of the Redis server on a port."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"redis-server" in words.split(b"\0")[0] and str(port).encode() in words:
            return int(folder.name)
    raise AssertionError(port)


_CACHED = {"SAGE_CACHE_ENABLED": "true"}


def test_the_same_question_is_answered_from_the_cache(tmp_path: Path) -> None:
    """Whole or streamed; a fresh answer can be asked for; a failure is never kept."""
    with _pair(tmp_path, _CACHED) as (agent, upstream):
        first = _ask(agent, "hi").json()
        again = _ask(agent, "hi").json()
        assert again["parts"] == first["parts"]
        assert ("cached" in first["metadata"], again["metadata"]["cached"]) == (False, True)
        assert again["messageId"] != first["messageId"]
        streamed = _ask(agent, "hi", stream=True).text
        assert "Hello from upstream" in streamed
        assert '"cached":true' in streamed
        assert len(upstream.asked) == 1
        assert "cached" not in _ask(agent, "hi", headers={"cache-control": "no-cache"}).json()["metadata"]
        assert len(upstream.asked) == 2
        for _ in range(2):
            assert _ask(agent, "broken").status_code == httpx.codes.BAD_GATEWAY
        assert len(upstream.asked) == 4
        results = {result: _total(agent, "sage_agent_cache_requests_total", f'result="{result}"') for result in ("hit", "miss", "bypass")}
        assert results == {"hit": 2, "miss": 3, "bypass": 1}


def test_a_stream_is_kept_for_who_asks_the_same(tmp_path: Path) -> None:
    """What was streamed once is answered from the cache to the next."""
    with _pair(tmp_path, _CACHED) as (agent, upstream):
        assert "event: done" in _ask(agent, "hi", stream=True).text
        assert _ask(agent, "hi").json()["metadata"]["cached"] is True
        assert len(upstream.asked) == 1


def test_who_asks_the_same_at_the_same_time_waits_for_one_answer(tmp_path: Path) -> None:
    """Of ten that ask at once one goes to the model."""
    environ = {"SAGE_CACHE_ENABLED": "true", "SAGE_LLM_SCRIPTED_LATENCY": "300ms"}
    answers: list[dict[str, Any]] = []
    with running_agent(tmp_path, environ=environ) as agent:
        threads = [threading.Thread(target=lambda: answers.append(_ask(agent, "the same").json())) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert _total(agent, "sage_llm_api_calls_total") == 1
    assert len({json.dumps(answer["parts"]) for answer in answers}) == 1
    assert sum("cached" in answer["metadata"] for answer in answers) == 9


@pytest.mark.parametrize(("scope", "calls"), [("user", 2), ("tenant", 1)])
def test_answers_are_given_again_within_their_scope(tmp_path: Path, scope: str, calls: int) -> None:
    """Another caller of the same tenant gets a cached answer only where that is wanted; another tenant never does."""
    keys = [{"id": name, "tenant": tenant, "key": f"sage_the_key_of_{name}"} for name, tenant in (("ann", "a"), ("bob", "a"), ("eve", "e"))]
    environ = {**_CACHED, "SAGE_CACHE_SCOPE": scope, "SAGE_API_KEYS": json.dumps(keys)}
    with _pair(tmp_path, environ) as (agent, upstream):
        for name in ("ann", "bob"):
            _ask(agent, "hi", headers={"x-api-key": f"sage_the_key_of_{name}"}).raise_for_status()
        assert len(upstream.asked) == calls
        _ask(agent, "hi", headers={"x-api-key": "sage_the_key_of_eve"}).raise_for_status()
        assert len(upstream.asked) == calls + 1


def test_a_budget_admits_what_it_can_pay_for_and_gives_back_what_was_not_spent(tmp_path: Path) -> None:
    """While one call may cost all that is left the next is refused; once its price is known there is money again."""
    environ = {"SAGE_BUDGET_USER": "0.0150", "SAGE_BUDGET_AGENT": "5", "SAGE_BUDGET_PERIOD": "1h", "SAGE_LLM_TIMEOUT": "30s"}
    with _pair(tmp_path, environ) as (agent, upstream):
        slow = threading.Thread(target=lambda: _leave_after(agent, "slow", 1.0))
        slow.start()
        deadline = time.monotonic() + 5
        while not upstream.asked:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        refused = _ask(agent, "hi")
        assert (refused.status_code, refused.json()["error"]["message"]) == (429, "The budget of this user is spent.")
        assert 1 <= int(refused.headers["retry-after"]) <= 3600
        slow.join()
        assert upstream.left.wait(2)
        assert _ask(agent, "hi").status_code == httpx.codes.TOO_MANY_REQUESTS, (
            "what a call that was given up cost is not known: it stays spent"
        )
        assert _total(agent, "sage_llm_budget_usd") == 5


def test_many_cheap_calls_fit_where_few_dear_ones_would(tmp_path: Path) -> None:
    """Each sets aside a cent and costs a hundredth of that."""
    with _pair(tmp_path, {"SAGE_BUDGET_USER": "0.0150"}) as (agent, _):
        assert [_ask(agent, "hi").status_code for _ in range(20)] == [200] * 20


def test_a_question_that_is_too_long_is_refused(tmp_path: Path) -> None:
    """Before anybody is asked or anything is set aside."""
    with _pair(tmp_path, {"SAGE_LLM_MAX_INPUT_TOKENS": "10"}) as (agent, upstream):
        refused = _ask(agent, "x" * 200)
        assert (refused.status_code, refused.json()["error"]["type"]) == (422, "context_length")
        assert not upstream.asked


def test_a_stream_whose_caller_leaves_is_cancelled_and_its_part_is_counted(tmp_path: Path) -> None:
    """The upstream call ends, and what had been said by then is on the bill."""
    with running_agent(tmp_path, environ={"SAGE_LLM_SCRIPTED_LATENCY": "20s"}) as agent:
        body = {"parts": [{"kind": "text", "text": "tell me"}]}
        with httpx.stream("POST", f"{agent.url}/v1/messages/stream", json=body, timeout=20) as response:
            next(response.iter_text())
        deadline = time.monotonic() + 5
        while not _total(agent, "sage_agent_requests_total", 'outcome="cancelled"'):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert _total(agent, "sage_llm_tokens_total", 'type="output"') >= 1
        assert _total(agent, "sage_agent_requests_in_flight") == 0


def _leave_after(agent: RunningAgent, text: str, seconds: float) -> None:
    try:
        httpx.post(f"{agent.url}/v1/messages", json={"parts": [{"kind": "text", "text": text}]}, timeout=seconds)
    except httpx.ReadTimeout:
        return


def test_the_queue_and_the_workers_are_on_metrics(tmp_path: Path) -> None:
    """While two calls run and two wait, that is what is said; afterwards nobody waits."""
    environ = {"SAGE_LLM_SCRIPTED_LATENCY": "1500ms", "SAGE_WORKER_POOL_SIZE": "2", "SAGE_MAX_CONCURRENT": "2", "SAGE_QUEUE_SIZE": "7"}
    with running_agent(tmp_path, environ=environ) as agent:
        threads = [threading.Thread(target=lambda: _ask(agent, "hi")) for _ in range(4)]
        for thread in threads:
            thread.start()
        seen: set[tuple[float, float]] = set()
        deadline = time.monotonic() + 5
        while (2.0, 2.0) not in seen and time.monotonic() < deadline:
            seen.add((_total(agent, "sage_agent_queue_depth"), _total(agent, "sage_agent_workers_busy")))
            time.sleep(0.1)
        assert (2.0, 2.0) in seen
        assert (_total(agent, "sage_agent_queue_capacity"), _total(agent, "sage_agent_workers")) == (7, 2)
        for thread in threads:
            thread.join()
        assert _total(agent, "sage_agent_queue_wait_seconds_count") == 2


def test_simple_questions_go_to_the_cheaper_model_and_others_do_not(tmp_path: Path) -> None:
    """By the length of the question with what was said before; the answer says who gave it, and it falls back as others do."""
    with _pair(tmp_path, {"SAGE_LLM_SIMPLE_MODEL": "gpt-4o-mini", "SAGE_LLM_SIMPLE_MAX_CHARS": "60"}) as (agent, upstream):
        models = [_ask(agent, text).json()["metadata"]["model"] for text in ("hi", "x" * 61)]
        assert models == ["gpt-4o-mini", _MODEL]
        for _ in range(4):
            _ask(agent, "and so on and so on", contextId="c").raise_for_status()
        assert [asked["model"] for asked in upstream.asked[2:]] == ["gpt-4o-mini", "gpt-4o-mini", _MODEL, _MODEL]
        assert _ask(agent, "rate limit").status_code == httpx.codes.TOO_MANY_REQUESTS
        assert [asked["model"] for asked in upstream.asked[-2:]] == ["gpt-4o-mini", _MODEL]
        assert _total(agent, "sage_llm_api_calls_total", 'model="gpt-4o-mini"') == 4
