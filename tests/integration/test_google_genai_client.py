"""The real Gemini client against a server on loopback, in its newest version; test_oldest_clients.py runs this with the oldest."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google import genai
from google.genai import errors, types

import sage_obs
from sage_obs.conventions import (
    LLM_CACHED_TOKENS,
    LLM_CALL_DURATION,
    LLM_CALLS,
    LLM_COST,
    LLM_ERRORS,
    LLM_REASONING_TOKENS,
    LLM_TIME_TO_FIRST_TOKEN,
    LLM_TOKENS,
    STREAMS_ABANDONED,
)
from sage_obs.integrations.google_genai import model_of
from tests.support.llm_server import FakeModels, fake_models
from tests.support.llm_wire import PIECES, SECRET
from tests.support.metrics import value
from tests.support.otlp import attributes, receiver

Start = Callable[..., sage_obs.Handle]
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
"""What aiohttp says of google-genai, which uses it where it is installed."""
MODEL = "gemini-2.5-flash"


@pytest.fixture
def fake() -> Iterator[FakeModels]:
    """The server."""
    with fake_models() as found:
        yield found


@pytest.fixture
def client(fake: FakeModels) -> Any:
    """A client of the server."""
    return genai.Client(api_key="k", http_options=types.HttpOptions(base_url=fake.url))


def _asynchronously(client: Any, work: Callable[[Any], Any]) -> None:
    """Run the work with the asynchronous client and close what it opened; older versions leave that to the collector."""

    async def main() -> None:
        try:
            await work(client.aio)
        finally:
            close = getattr(client.aio, "aclose", None) or client._api_client._async_httpx_client.aclose
            await close()

    asyncio.run(main())


def _used() -> tuple[float, ...]:
    """Input, output, cache reads and reasoning, as counted."""
    return (
        value(LLM_TOKENS, type="input"),
        value(LLM_TOKENS, type="output"),
        value(LLM_CACHED_TOKENS, kind="read"),
        value(LLM_REASONING_TOKENS),
    )


def test_generated_content_is_one_call_whose_output_includes_thoughts(instrument: Start, client: Any) -> None:
    """The answer is the library's own; tool results count as input, thoughts as output and as reasoning."""
    instrument()
    answer = client.models.generate_content(model=MODEL, contents="hi")
    assert type(answer) is types.GenerateContentResponse
    assert answer.text == SECRET
    labels = {"provider": "gcp.gemini", "model": MODEL, "operation": "generate_content"}
    assert value(LLM_CALLS) == value(LLM_CALLS, **labels, outcome="success") == 1
    assert value(LLM_CALL_DURATION, suffix="_count", **labels) == 1
    assert _used() == (100, 20, 40, 8)
    assert value(LLM_COST, model=MODEL) == pytest.approx(60 * 0.3e-6 + 40 * 0.03e-6 + 20 * 2.5e-6)


def test_streams_chats_and_embeddings_are_calls_too(instrument: Start, client: Any) -> None:
    """Each is one; a stream counts when it ends, with the time to its first token."""
    instrument()
    stream = client.models.generate_content_stream(model=f"models/{MODEL}", contents="hi")
    assert [chunk.text for chunk in stream] == list(PIECES)
    assert value(LLM_CALLS, model=MODEL, outcome="success") == value(LLM_TIME_TO_FIRST_TOKEN, suffix="_count", model=MODEL) == 1
    assert _used() == (100, 20, 40, 8)
    assert client.chats.create(model=MODEL).send_message("hi").text == SECRET
    client.models.embed_content(model="text-embedding-004", contents="hi")
    assert value(LLM_CALLS, outcome="success") == 3
    assert value(LLM_CALLS, operation="embeddings") == 1


def test_functions_that_the_library_runs_make_a_call_an_inference_each(instrument: Start, client: Any) -> None:
    """What the caller asked once is two calls where the model was asked again with what its function said."""
    instrument()
    seen = []

    def weather(city: str) -> str:
        """The weather in a city."""
        seen.append(city)
        return "fine"

    weather.__annotations__ = {"city": str, "return": str}  # older versions do not read them as text
    assert client.models.generate_content(model=MODEL, contents="tool", config={"tools": [weather]}).text == SECRET
    assert seen == ["Bern"]
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome="success") == 2


def test_asynchronous_calls_and_streams_are_measured_alike(instrument: Start, client: Any) -> None:
    """One call each for a whole answer, a stream, a chat, an embedding and a failure."""
    instrument()

    async def work(aio: Any) -> None:
        models = aio.models
        assert (await models.generate_content(model=MODEL, contents="hi")).text == SECRET
        stream = await models.generate_content_stream(model=MODEL, contents="hi")
        assert [chunk.text async for chunk in stream] == list(PIECES)
        assert (await aio.chats.create(model=MODEL).send_message("hi")).text == SECRET
        await models.embed_content(model="text-embedding-004", contents="hi")
        for ask in (models.generate_content, models.generate_content_stream):
            with pytest.raises(errors.ClientError):
                async for _ in await ask(model=MODEL, contents="rate limit"):
                    pass

    _asynchronously(client, work)
    assert value(LLM_CALLS, outcome="success") == 4
    assert value(LLM_CALLS, outcome="rejected") == 2
    assert _used() == (300, 60, 120, 24)


@pytest.mark.parametrize(
    ("prompt", "stream", "kind", "outcome"),
    [
        ("rate limit", False, "rate_limited", "rejected"),
        ("rate limit", True, "rate_limited", "rejected"),
        ("broken", False, "server_error", "server_error"),
        ("overloaded", False, "unavailable", "server_error"),
        ("key", False, "auth", "client_error"),
        ("too long", False, "context_length", "client_error"),
        ("hang up", False, "unavailable", "server_error"),
        ("cut", True, "unavailable", "server_error"),
    ],
)
def test_a_failure_is_classified_and_raised_as_it_is(
    instrument: Start,
    client: Any,
    prompt: str,
    stream: bool,  # noqa: FBT001 - a table
    kind: str,
    outcome: str,
) -> None:
    """The caller sees the library's exception; one failed call of that kind is counted."""
    instrument()
    ask = client.models.generate_content_stream if stream else client.models.generate_content
    with pytest.raises(Exception) as raised:  # noqa: PT011 - whatever the library raises
        list(ask(model=MODEL, contents=prompt))
    assert type(raised.value).__module__.partition(".")[0] in {"google", "httpx", "httpx2"}
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome=outcome) == 1
    assert value(LLM_ERRORS) == value(LLM_ERRORS, error_type=kind) == 1


def test_a_blocked_prompt_is_a_failed_call(instrument: Start, client: Any) -> None:
    """Nothing is raised, as the library does not either; the call failed for its content, and its tokens were billed."""
    instrument()
    assert not client.models.generate_content(model=MODEL, contents="blocked").candidates
    assert value(LLM_ERRORS, error_type="content_filter") == value(LLM_CALLS, outcome="client_error") == 1
    assert value(LLM_TOKENS, type="input") == 5


def test_streams_that_are_left_are_counted_once(instrument: Start, client: Any) -> None:
    """Closed or dropped half-way they were cancelled; no task or generator complains."""
    instrument()
    stream = client.models.generate_content_stream(model=MODEL, contents="hi")
    next(stream)
    stream.close()
    dropped = client.models.generate_content_stream(model=MODEL, contents="hi")
    next(dropped)
    del dropped

    async def work(aio: Any) -> None:
        stream = await aio.models.generate_content_stream(model=MODEL, contents="hi")
        await anext(stream)
        await stream.aclose()

    _asynchronously(client, work)
    gc.collect()
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome="cancelled") == 3
    assert value(STREAMS_ABANDONED) == value(STREAMS_ABANDONED, component="google-genai") == 3


def test_a_call_inside_a_call_that_is_measured_by_hand_counts_once(instrument: Start, client: Any) -> None:
    """`llm_call` around a client is the one call."""
    instrument()
    with sage_obs.llm_call("mine", MODEL):
        client.models.generate_content(model=MODEL, contents="hi")
    assert value(LLM_CALLS) == value(LLM_CALLS, provider="mine") == 1


def test_the_span_has_the_conventions_attributes_and_no_content(instrument: Start, client: Any) -> None:
    """Request and response model, id, finish reasons and usage with its parts; of what was said, nothing."""
    with receiver() as backend:
        instrument(traces_endpoint=f"{backend.url}/v1/traces", sampling_rate=1.0)
        client.models.generate_content(model=MODEL, contents="a secret prompt")
        list(client.models.generate_content_stream(model=MODEL, contents="a secret prompt"))
        sage_obs.flush()
        spans = backend.wait(2)
    for span in spans:
        found = attributes(span)
        assert [one.string_value for one in found.pop("gen_ai.response.finish_reasons").values] == ["STOP"]
        assert found.pop("gen_ai.response.id", "resp-1") == "resp-1"  # older versions leave it out
        assert found == {
            "gen_ai.operation.name": "generate_content",
            "gen_ai.provider.name": "gcp.gemini",
            "gen_ai.request.model": MODEL,
            "gen_ai.response.model": "gemini-2.5-flash-001",
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 20,
            "gen_ai.system": "gcp.gemini",
            "gen_ai.usage.prompt_tokens": 100,
            "gen_ai.usage.completion_tokens": 20,
            "gen_ai.usage.cache_read.input_tokens": 40,
            "gen_ai.usage.reasoning.output_tokens": 8,
        }
    assert "secret" not in "".join(str(span) for span in spans)


@pytest.mark.parametrize(
    ("given", "model"),
    [
        (MODEL, MODEL),
        (f"models/{MODEL}", MODEL),
        (f"projects/p/locations/l/publishers/google/models/{MODEL}", MODEL),
        (None, "unknown"),
        ("", "unknown"),
    ],
)
def test_a_model_is_known_by_its_own_name(given: object, model: str) -> None:
    """The collection or project it is named in is no part of it, so that it has a price."""
    assert model_of(given) == model
