"""The adapters against servers on loopback that speak their providers' formats, and the agent in front of several of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Final

import httpx
import pytest

from sage_agent.llm.providers.base import Completion, Delta, Prompt, ProviderError, Usage
from sage_agent.llm.providers.http import HttpProvider, open_client
from sage_agent.llm.providers.wires import wire_of
from sage_obs.conventions import ErrorType
from tests.support.agents import RunningAgent, running_agent
from tests.support.llm_server import FakeModels, fake_models
from tests.support.llm_wire import PIECES, SECRET
from tests.support.ports import free_port

_PROVIDERS: Final = ("openai", "anthropic", "gemini")
_PREFIX: Final = {"openai": "/v1", "anthropic": "", "gemini": ""}
_REASONS: Final = ("unavailable", "breaker_open")
_USAGES: Final = {
    "openai": Usage(100, 20, cached_read=40, reasoning=8),
    "anthropic": Usage(100, 20, cached_read=40, cached_write=10),
    "gemini": Usage(100, 20, cached_read=40, reasoning=8),
}


@pytest.fixture(scope="module")
def models() -> Iterator[FakeModels]:
    """One server for all."""
    with fake_models() as fake:
        yield fake


def _provider(models: FakeModels, name: str) -> HttpProvider:
    base_url = models.url + _PREFIX[name]
    return HttpProvider(wire_of(name), open_client(connections=2), model="m-1", base_url=base_url, api_key="k-1")


def _ask(models: FakeModels, name: str, text: str) -> Completion:
    async def run() -> Completion:
        async with aclosing(_Closing(_provider(models, name))) as closing:
            return await closing.provider.complete(Prompt(text, max_tokens=9))

    return asyncio.run(run())


def _stream(models: FakeModels, name: str, text: str) -> tuple[list[Delta], ProviderError | None]:
    async def run() -> tuple[list[Delta], ProviderError | None]:
        deltas: list[Delta] = []
        async with aclosing(_Closing(_provider(models, name))) as closing:
            try:
                async for delta in closing.provider.stream(Prompt(text, max_tokens=9)):
                    deltas.append(delta)  # noqa: PERF401 - what came before a failure counts
            except ProviderError as exc:
                return deltas, exc
        return deltas, None

    return asyncio.run(run())


class _Closing:
    def __init__(self, provider: HttpProvider) -> None:
        self.provider = provider

    async def aclose(self) -> None:
        await self.provider.close()


@pytest.mark.parametrize("name", _PROVIDERS)
def test_an_answer_comes_whole_and_in_pieces(models: FakeModels, name: str) -> None:
    """Text, usage with the cache in it and the reason for the end are the same both ways."""
    whole = _ask(models, name, "hi")
    deltas, error = _stream(models, name, "hi")
    assert whole == Completion(SECRET, _USAGES[name], "stop")
    assert error is None
    assert [delta.text for delta in deltas if delta.text] == list(PIECES)
    assert [delta.usage for delta in deltas if delta.usage][-1] == _USAGES[name]
    assert [delta.finish for delta in deltas if delta.finish] == ["stop"]


@pytest.mark.parametrize(
    ("name", "key", "expected"),
    [
        ("openai", "authorization", "Bearer k-1"),
        ("anthropic", "x-api-key", "k-1"),
        ("gemini", "x-goog-api-key", "k-1"),
    ],
)
def test_the_key_and_the_bound_are_sent(models: FakeModels, name: str, key: str, expected: str) -> None:
    """Each provider gets the key in its header and the longest answer in its field."""
    _ask(models, name, "hi")
    asked = models.asked[-1]
    assert models.headers[-1][key] == expected
    assert asked.get("max_tokens", asked.get("generationConfig", {}).get("maxOutputTokens")) == 9


@pytest.mark.parametrize("name", _PROVIDERS)
@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("rate limit", ErrorType.RATE_LIMITED),
        ("broken", ErrorType.SERVER_ERROR),
        ("key", ErrorType.AUTH),
        ("too long", ErrorType.CONTEXT_LENGTH),
        ("overloaded", ErrorType.UNAVAILABLE),
        ("hang up", ErrorType.UNAVAILABLE),
        ("not json", ErrorType.SERVER_ERROR),
    ],
)
def test_failures_are_the_same_for_every_provider(models: FakeModels, name: str, prompt: str, expected: ErrorType) -> None:
    """However a provider says it, a failure has one place in the taxonomy, streamed or not."""
    with pytest.raises(ProviderError) as caught:
        _ask(models, name, prompt)
    _, streamed = _stream(models, name, prompt)
    assert caught.value.error_type is expected
    assert streamed is not None
    assert streamed.error_type is expected


@pytest.mark.parametrize("name", _PROVIDERS)
def test_the_time_to_wait_is_read(models: FakeModels, name: str) -> None:
    """Seven seconds in the header, or six and a bit in Gemini's body."""
    with pytest.raises(ProviderError) as caught:
        _ask(models, name, "limited")
    assert (caught.value.error_type, caught.value.retry_after) == (ErrorType.RATE_LIMITED, 7)


@pytest.mark.parametrize(
    ("name", "prompt", "expected"),
    [
        ("openai", "cut", ErrorType.UNAVAILABLE),
        ("anthropic", "cut", ErrorType.UNAVAILABLE),
        ("gemini", "cut", ErrorType.UNAVAILABLE),
        ("openai", "malformed", ErrorType.SERVER_ERROR),
        ("anthropic", "malformed", ErrorType.SERVER_ERROR),
        ("openai", "break off", ErrorType.RATE_LIMITED),
        ("anthropic", "break off", ErrorType.UNAVAILABLE),
    ],
)
def test_a_broken_stream_is_an_error_after_its_pieces(models: FakeModels, name: str, prompt: str, expected: ErrorType) -> None:
    """What came is handed on, and the failure says what the provider said of it."""
    deltas, error = _stream(models, name, prompt)
    assert any(delta.text for delta in deltas)
    assert error is not None
    assert error.error_type is expected


def test_a_prompt_that_gemini_blocks_is_filtered(models: FakeModels) -> None:
    """An answer without a candidate and with a reason for it is the content filter's."""
    with pytest.raises(ProviderError) as caught:
        _ask(models, "gemini", "blocked")
    assert caught.value.error_type is ErrorType.CONTENT_FILTER


def _post(agent: RunningAgent, text: str, *, path: str = "/v1/messages") -> httpx.Response:
    return httpx.post(agent.url + path, json={"parts": [{"kind": "text", "text": text}]}, timeout=10)


def _metrics(agent: RunningAgent) -> list[str]:
    return httpx.get(f"{agent.ops_url}/metrics", timeout=5).text.splitlines()


def test_a_rate_limited_key_gives_way_to_the_next(tmp_path: Path) -> None:
    """Two keys in the environment, 429 for the first: the second is used at once, and the caller notices nothing."""
    with fake_models() as fresh:
        environ = {
            "SAGE_LLM_PROVIDER": "anthropic",
            "SAGE_LLM_MODEL": "claude-haiku-4-5",
            "SAGE_LLM_BASE_URL": fresh.url,
            "SAGE_LLM_API_KEYS": "k-1,k-2",
        }
        with running_agent(tmp_path, environ=environ) as agent:
            answer = _post(agent, "limited once")
            lines = _metrics(agent)
    assert answer.json()["metadata"] == {"model": "claude-haiku-4-5", "usage": {"input_tokens": 100, "output_tokens": 20}}
    assert [headers["x-api-key"] for headers in fresh.headers] == ["k-1", "k-2"]
    assert 'sage_llm_retries_total{provider="anthropic",reason="rate_limited"} 1.0' in lines


def test_the_agent_falls_back_degrades_and_stays_alive(models: FakeModels, tmp_path: Path) -> None:
    """With the first provider dead the second answers; the breaker then skips the dead one, readiness says degraded, liveness nothing."""
    config = {
        "llm": {
            "provider": "openai",
            "model": "m-1",
            "base_url": f"http://127.0.0.1:{free_port()}/v1",
            "fallbacks": [{"provider": "gemini", "model": "gemini-2.5-flash", "base_url": models.url, "api_key": "${KEY}"}],
            "breaker": {"min_calls": 2},
        }
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    with running_agent(tmp_path, environ={"KEY": "g-1"}) as agent:
        before = httpx.get(f"{agent.url}/health/ready", timeout=5).json()["status"]
        answers = [_post(agent, "hi").json()["metadata"]["model"] for _ in range(3)]
        streamed = _post(agent, "hi", path="/v1/messages/stream").text
        ready, live = (httpx.get(f"{agent.url}/health/{probe}", timeout=5) for probe in ("ready", "live"))
        lines = _metrics(agent)
    assert (before, ready.status_code, ready.json()["status"], live.json()["status"]) == ("healthy", 200, "degraded", "healthy")
    assert answers == ["gemini-2.5-flash"] * 3
    assert "event: done" in streamed
    assert models.headers[-1]["x-goog-api-key"] == "g-1"
    counted = [f'sage_llm_fallbacks_total{{from_provider="openai",reason="{why}",to_provider="gcp.gemini"}} 2.0' for why in _REASONS]
    assert set(counted) <= set(lines)
    assert any(line.startswith("sage_agent_breaker_state") and "openai" in line and line.endswith(" 1.0") for line in lines)


def test_with_every_provider_left_alone_callers_are_told_when_to_come_back(tmp_path: Path) -> None:
    """Nothing is called any more: 503 with a Retry-After of the cool-down, at once."""
    llm = {
        "provider": "gemini",
        "model": "m",
        "base_url": f"http://127.0.0.1:{free_port()}",
        "breaker": {"min_calls": 2, "cooldown": "40s"},
    }
    (tmp_path / "config.yaml").write_text(json.dumps({"llm": {**llm, "retry": {"max_wait": "10ms"}}}))
    with running_agent(tmp_path) as agent:
        answers = [_post(agent, "hi") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [503, 503]
    assert 38 <= int(answers[1].headers["retry-after"]) <= 40
