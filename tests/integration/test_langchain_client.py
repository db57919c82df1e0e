"""LangChain's models over a client that has an integration: they need none of their own."""

from __future__ import annotations

import asyncio
import importlib
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

os.environ.setdefault("LANGSMITH_TRACING", "false")  # it sends what it traces to its maker
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    langchain_openai: Any = importlib.import_module("langchain_openai")

import sage_obs
from sage_obs.conventions import LLM_CALLS, LLM_ERRORS, LLM_TIME_TO_FIRST_TOKEN, LLM_TOKENS, STEPS
from tests.support.llm_server import FakeModels, fake_models
from tests.support.llm_wire import SECRET
from tests.support.metrics import value

Start = Callable[..., sage_obs.Handle]
pytestmark = pytest.mark.filterwarnings("ignore")
"""What it warns of is its own business with pydantic and asyncio, and clients that nobody closes."""


@pytest.fixture
def fake() -> Iterator[FakeModels]:
    """The server."""
    with fake_models() as found:
        yield found


@pytest.fixture
def model(fake: FakeModels) -> Any:
    """A chat model of the server that does not retry."""
    return langchain_openai.ChatOpenAI(model="gpt-4o", base_url=f"{fake.url}/v1", api_key="k", max_retries=0)


def test_what_langchain_asks_is_counted_once_with_its_usage(instrument: Start, model: Any) -> None:
    """Invoked, streamed and in batches, sync and async: each inference is one call with its tokens."""
    instrument()
    assert model.invoke("hi").content == SECRET
    assert "".join(chunk.content for chunk in model.stream("hi")) == SECRET
    assert len(model.batch(["hi", "hi"])) == 2

    async def work() -> None:
        assert (await model.ainvoke("hi")).content == SECRET
        assert "".join([chunk.content async for chunk in model.astream("hi")]) == SECRET

    asyncio.run(work())
    assert value(LLM_CALLS) == value(LLM_CALLS, provider="openai", model="gpt-4o", outcome="success") == 6
    assert value(LLM_TIME_TO_FIRST_TOKEN, suffix="_count") == 2
    assert value(LLM_TOKENS, type="input") == 600


def test_a_failure_is_counted_once(instrument: Start, model: Any) -> None:
    """It is classified as the client's own exception, which the caller sees."""
    instrument()

    @sage_obs.agent("asker")
    def asker() -> None:
        model.invoke("rate limit")

    with pytest.raises(Exception, match="429"):
        asker()
    assert value(STEPS, suffix="_sum") == 1
    assert value(LLM_CALLS) == value(LLM_ERRORS, error_type="rate_limited") == 1
