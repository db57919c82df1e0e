"""The real litellm against a server on loopback, in its newest version; test_oldest_clients.py runs this with the oldest."""

from __future__ import annotations

import asyncio
import gc
import importlib
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    litellm: Any = importlib.import_module("litellm")

import sage_obs
from sage_obs.conventions import (
    LLM_CALL_DURATION,
    LLM_CALLS,
    LLM_COST,
    LLM_ERRORS,
    LLM_TIME_TO_FIRST_TOKEN,
    LLM_TOKENS,
    STREAMS_ABANDONED,
)
from sage_obs.integrations.litellm import _Asked, provider_and_model
from sage_obs.integrations.stream_usage import StreamUsage
from tests.support.llm_server import FakeModels, fake_models
from tests.support.llm_wire import PIECES, SECRET
from tests.support.metrics import value
from tests.support.otlp import receiver

Start = Callable[..., sage_obs.Handle]
GPT, CLAUDE = "openai/gpt-4o", "anthropic/claude-haiku-4-5"
pytestmark = pytest.mark.filterwarnings("ignore")
"""The library warns a lot: of its own models, and of its own clients, which nobody closes."""


@pytest.fixture
def fake() -> Iterator[FakeModels]:
    """The server; afterwards no client that the library keeps points at it."""
    with fake_models() as found:
        yield found
    litellm.in_memory_llm_clients_cache.flush_cache()
    gc.collect()


def _ask(fake: FakeModels, model: str = GPT, prompt: str = "hi", **more: Any) -> dict[str, Any]:
    base = fake.url if model == CLAUDE else f"{fake.url}/v1"
    messages = [{"role": "user", "content": prompt}]
    return {"model": model, "messages": messages, "api_base": base, "api_key": "k", "max_retries": 0, "num_retries": 0, **more}


def _asynchronously(work: Callable[[], Any]) -> None:
    async def main() -> None:
        await work()
        for client in list(litellm.in_memory_llm_clients_cache.cache_dict.values()):
            close = getattr(client, "close", None)
            if close is not None and asyncio.iscoroutinefunction(close):
                await close()
        litellm.in_memory_llm_clients_cache.flush_cache()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("model", "provider", "name", "cost"), [(GPT, "openai", "gpt-4o", 400e-6), (CLAUDE, "anthropic", "claude-haiku-4-5", 166.5e-6)]
)
def test_a_completion_is_one_call_whatever_is_called_underneath(
    instrument: Start, fake: FakeModels, model: str, provider: str, name: str, cost: float
) -> None:
    """The client library it calls is not counted again; provider and model are those that were asked."""
    instrument()
    answer = litellm.completion(**_ask(fake, model))
    assert type(answer).__name__ == "ModelResponse"
    assert answer.choices[0].message.content == SECRET
    labels = {"provider": provider, "model": name, "operation": "chat"}
    assert value(LLM_CALLS) == value(LLM_CALLS, **labels, outcome="success") == 1
    assert value(LLM_CALL_DURATION, suffix="_count") == 1
    assert value(LLM_TOKENS, type="input", model=name) == 100
    assert value(LLM_TOKENS, type="output", model=name) == 20
    assert value(LLM_COST, model=name) == pytest.approx(cost, rel=0.02)  # older versions do not say what was written to the cache


@pytest.mark.parametrize("model", [GPT, CLAUDE])
def test_a_stream_is_one_call_with_its_usage(instrument: Start, fake: FakeModels, model: str) -> None:
    """Usage is asked for where the provider wants to be asked, and the caller sees no more than without us."""
    instrument()
    stream = litellm.completion(**_ask(fake, model), stream=True)
    assert type(stream) is litellm.CustomStreamWrapper
    assert value(LLM_CALLS) == 0
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SECRET
    assert len(chunks) <= len(PIECES) + 2
    assert all(getattr(chunk, "usage", None) is None for chunk in chunks)
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome="success") == value(LLM_TIME_TO_FIRST_TOKEN, suffix="_count") == 1
    assert (value(LLM_TOKENS, type="input"), value(LLM_TOKENS, type="output")) == (100, 20)


def test_asynchronous_calls_streams_embeddings_and_the_router_are_measured_alike(instrument: Start, fake: FakeModels) -> None:
    """Each is one call."""
    instrument()

    async def work() -> None:
        assert (await litellm.acompletion(**_ask(fake))).choices[0].message.content == SECRET
        stream: Any = await litellm.acompletion(**_ask(fake), stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == SECRET
        await litellm.aembedding(model="openai/text-embedding-3-small", input="hi", api_base=f"{fake.url}/v1", api_key="k")
        parameters = {"model": GPT, "api_base": f"{fake.url}/v1", "api_key": "k"}
        router = litellm.Router(model_list=[{"model_name": "mine", "litellm_params": parameters}])
        await router.acompletion(model="mine", messages=[{"role": "user", "content": "hi"}])
        with pytest.raises(litellm.RateLimitError):
            await litellm.acompletion(**_ask(fake, prompt="rate limit"))

    _asynchronously(work)
    assert value(LLM_CALLS, outcome="success") == 4
    assert value(LLM_CALLS, operation="embeddings", outcome="success") == 1
    assert value(LLM_CALLS, outcome="rejected") == 1
    assert value(LLM_TOKENS, type="input") == 307


@pytest.mark.parametrize("options", [{"include_usage": True}, {"include_usage": False}], ids=["asked", "refused"])
def test_a_callers_choice_about_usage_is_not_touched(instrument: Start, fake: FakeModels, options: Any) -> None:
    """Who asks for usage gets it, and the server sees what the caller chose."""
    instrument()
    chunks = list(litellm.completion(**_ask(fake), stream=True, stream_options=options))
    assert fake.asked[-1]["stream_options"] == options
    assert any(getattr(chunk, "usage", None) for chunk in chunks) is options["include_usage"]


def test_a_server_that_refuses_the_question_for_usage_is_asked_again_without(instrument: Start, fake: FakeModels) -> None:
    """The caller gets its stream, as one call, and the next one is not asked at all."""
    instrument()
    for _ in range(2):
        chunks = list(litellm.completion(**_ask(fake, prompt="no stream options"), stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SECRET
    assert ["stream_options" in body for body in fake.asked] == [True, False, False]
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome="success") == 2


@pytest.mark.parametrize(
    ("prompt", "kind", "outcome"),
    [
        ("rate limit", "rate_limited", "rejected"),
        ("broken", "server_error", "server_error"),
        ("overloaded", "unavailable", "server_error"),
        ("key", "auth", "client_error"),
        ("too long", "context_length", "client_error"),
    ],
)
def test_a_failure_is_classified_and_raised_as_it_is(instrument: Start, fake: FakeModels, prompt: str, kind: str, outcome: str) -> None:
    """The caller sees the library's exception; one failed call of that kind is counted."""
    instrument()
    with pytest.raises(Exception) as raised:  # noqa: PT011 - whatever the library raises
        litellm.completion(**_ask(fake, CLAUDE if prompt == "too long" else GPT, prompt))
    assert type(raised.value).__module__ == "litellm.exceptions"
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome=outcome) == 1
    assert value(LLM_ERRORS) == value(LLM_ERRORS, error_type=kind) == 1


def test_a_stream_that_is_dropped_is_cancelled_and_abandoned(instrument: Start, fake: FakeModels) -> None:
    """It is counted once, when it is collected."""
    instrument()
    stream = litellm.completion(**_ask(fake), stream=True)
    next(stream)
    del stream
    litellm.completion(**_ask(fake))  # until the next call some versions keep what the last one returned
    deadline = time.monotonic() + 20
    while not value(STREAMS_ABANDONED) and time.monotonic() < deadline:  # the library's own threads may hold it a little longer
        gc.collect()
        time.sleep(0.01)
    assert value(LLM_CALLS, outcome="cancelled") == value(LLM_CALLS, outcome="success") == 1
    assert value(STREAMS_ABANDONED) == value(STREAMS_ABANDONED, component="litellm") == 1


def test_an_answer_from_the_librarys_own_cache_is_no_call(instrument: Start) -> None:
    """No model was asked and nobody sends a bill."""
    instrument()
    for hit in (True, False):
        asked = _Asked.of((GPT,), {}, "chat", StreamUsage())
        assert asked is not None
        answer = litellm.ModelResponse()
        answer._hidden_params["cache_hit"] = hit
        assert asked.answered(answer) is answer
    assert value(LLM_CALLS) == 1


def test_a_call_has_one_span(instrument: Start, fake: FakeModels) -> None:
    """The client library underneath makes none."""
    with receiver() as backend:
        instrument(traces_endpoint=f"{backend.url}/v1/traces", sampling_rate=1.0)
        litellm.completion(**_ask(fake, prompt="a secret prompt"))
        sage_obs.flush()
        spans = backend.wait(1)
    assert [span.name for span in spans] == ["chat gpt-4o"]
    assert "secret" not in str(spans[0])


@pytest.mark.parametrize(
    ("model", "given", "expected"),
    [
        ("gpt-4o", None, ("openai", "gpt-4o")),
        ("openai/gpt-4o", None, ("openai", "gpt-4o")),
        ("gemini/gemini-2.5-flash", None, ("gcp.gemini", "gemini-2.5-flash")),
        ("openrouter/anthropic/claude-3-haiku", None, ("openrouter", "anthropic/claude-3-haiku")),
        ("bedrock/anthropic.claude-3-haiku-20240307-v1:0", None, ("aws.bedrock", "anthropic.claude-3-haiku-20240307-v1:0")),
        ("mine", "azure", ("azure.ai.openai", "mine")),
        ("azure/mine", "azure", ("azure.ai.openai", "mine")),
        ("nobody/knows", None, ("unknown", "nobody/knows")),
        ("mine", "whatever a caller says", ("unknown", "mine")),
        (None, None, ("unknown", "unknown")),
    ],
)
def test_provider_and_model_are_what_will_be_asked(model: object, given: object, expected: tuple[str, str]) -> None:
    """The prefix, the library's table or what the caller says, in the conventions' words."""
    assert provider_and_model(model, given) == expected
