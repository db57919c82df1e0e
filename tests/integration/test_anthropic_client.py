"""The real Anthropic client against a server on loopback, in its newest version; test_oldest_clients.py runs this with the oldest."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import pytest

import sage_obs
from sage_obs.conventions import (
    LLM_CACHED_TOKENS,
    LLM_CALL_DURATION,
    LLM_CALLS,
    LLM_COST,
    LLM_ERRORS,
    LLM_TIME_TO_FIRST_TOKEN,
    LLM_TOKENS,
    STREAMS_ABANDONED,
)
from sage_obs.integrations.anthropic import provider_of
from tests.support.llm_server import FakeModels, fake_models
from tests.support.llm_wire import SECRET
from tests.support.metrics import value
from tests.support.otlp import attributes, receiver

Start = Callable[..., sage_obs.Handle]
MODEL = "claude-haiku-4-5"
EVENTS = 8


@pytest.fixture
def fake() -> Iterator[FakeModels]:
    """The server."""
    with fake_models() as found:
        yield found


@pytest.fixture
def client(fake: FakeModels) -> Iterator[anthropic.Anthropic]:
    """A synchronous client of the server that does not retry."""
    with anthropic.Anthropic(base_url=fake.url, api_key="k", max_retries=0) as found:
        yield found


def _ask(prompt: str = "hi", **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 10, "messages": [{"role": "user", "content": prompt}], **more}


def _used() -> tuple[float, ...]:
    """Input, output, cache reads and cache writes, as counted."""
    return (
        value(LLM_TOKENS, type="input"),
        value(LLM_TOKENS, type="output"),
        value(LLM_CACHED_TOKENS, kind="read"),
        value(LLM_CACHED_TOKENS, kind="write"),
    )


def _asynchronously(fake: FakeModels, work: Callable[[anthropic.AsyncAnthropic], Any]) -> Any:
    async def main() -> Any:
        async with anthropic.AsyncAnthropic(base_url=fake.url, api_key="k", max_retries=0) as client:
            return await work(client)

    return asyncio.run(main())


def test_a_message_is_one_call_whose_input_includes_the_cache(instrument: Start, client: anthropic.Anthropic) -> None:
    """The provider's 50 input tokens leave out 40 read from and 10 written to the cache; all 100 are counted and billed."""
    instrument()
    answer = client.messages.create(**_ask())
    assert type(answer).__name__ == "Message"
    assert value(LLM_CALLS) == value(LLM_CALLS, provider="anthropic", model=MODEL, operation="chat", outcome="success") == 1
    assert value(LLM_CALL_DURATION, suffix="_count", model=MODEL) == 1
    assert _used() == (100, 20, 40, 10)
    assert value(LLM_COST, model=MODEL) == pytest.approx(50 * 1e-6 + 40 * 0.1e-6 + 10 * 1.25e-6 + 20 * 5e-6)
    client.beta.messages.create(**_ask())
    assert value(LLM_CALLS, outcome="success") == 2


def test_a_stream_is_one_call_with_the_usage_of_its_first_and_last_event(instrument: Start, client: anthropic.Anthropic) -> None:
    """The stream keeps its type, attributes and events; it counts when it ends, with the time to its first token."""
    instrument()
    stream = client.messages.create(**_ask(), stream=True)
    assert type(stream) is anthropic.Stream
    assert stream.response.status_code == 200
    assert value(LLM_CALLS) == 0
    assert len(list(stream)) == EVENTS
    stream.close()
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome="success") == 1
    assert value(LLM_TIME_TO_FIRST_TOKEN, suffix="_count") == 1
    assert _used() == (100, 20, 40, 10)


def test_the_stream_helper_is_one_call(instrument: Start, client: anthropic.Anthropic, fake: FakeModels) -> None:
    """Read as text, as events or only to its final message, by either client."""
    instrument()
    with client.messages.stream(**_ask()) as stream:
        assert type(stream).__name__ == "MessageStream"
        assert "".join(stream.text_stream) == SECRET
    assert stream.get_final_message().usage.output_tokens == 20

    async def work(client: anthropic.AsyncAnthropic) -> None:
        async with client.messages.stream(**_ask()) as stream:
            assert await stream.get_final_text() == SECRET

    _asynchronously(fake, work)
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome="success") == 2
    assert _used() == (200, 40, 80, 20)


def test_asynchronous_messages_and_streams_are_measured_alike(instrument: Start, fake: FakeModels) -> None:
    """One call each for a whole message, a stream, a raw one and a failure."""
    instrument()

    async def work(client: anthropic.AsyncAnthropic) -> None:
        assert (await client.messages.create(**_ask())).id == "msg_1"
        stream = await client.messages.create(**_ask(), stream=True)
        assert type(stream) is anthropic.AsyncStream
        assert len([event async for event in stream]) == EVENTS
        async with client.messages.with_streaming_response.create(**_ask()) as response:
            assert (await response.parse()).id == "msg_1"
        with pytest.raises(anthropic.RateLimitError):
            await client.messages.create(**_ask("rate limit"))

    _asynchronously(fake, work)
    assert value(LLM_CALLS, outcome="success") == 3
    assert value(LLM_CALLS, outcome="rejected") == 1
    assert _used() == (300, 60, 120, 30)


def test_raw_responses_keep_their_types(instrument: Start, client: anthropic.Anthropic) -> None:
    """Whole or streamed, parsed or read as bytes, each is one call."""
    instrument()
    raw = client.messages.with_raw_response.create(**_ask())
    assert type(raw).__name__ in {"LegacyAPIResponse", "APIResponse"}
    assert raw.parse() is raw.parse()
    assert (value(LLM_CALLS), value(LLM_TOKENS, type="input")) == (1, 100)
    stream = client.messages.with_raw_response.create(**_ask(), stream=True).parse()
    assert type(stream) is anthropic.Stream
    assert len(list(stream)) == EVENTS
    with client.messages.with_streaming_response.create(**_ask()) as response:
        assert json.loads(response.read())["id"] == response.parse().id == "msg_1"
    with client.messages.with_streaming_response.create(**_ask(), stream=True) as response:
        assert b"message_stop" in b"".join(response.iter_bytes())
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome="success") == 4
    assert value(LLM_TOKENS, type="input") == 300


@pytest.mark.parametrize(
    ("prompt", "stream", "error", "kind", "outcome"),
    [
        ("rate limit", False, anthropic.RateLimitError, "rate_limited", "rejected"),
        ("broken", True, anthropic.InternalServerError, "server_error", "server_error"),
        ("overloaded", False, anthropic.InternalServerError, "unavailable", "server_error"),
        ("key", False, anthropic.AuthenticationError, "auth", "client_error"),
        ("too long", False, anthropic.BadRequestError, "context_length", "client_error"),
        ("hang up", False, anthropic.APIConnectionError, "unavailable", "server_error"),
        ("cut", True, Exception, "unavailable", "server_error"),
        ("malformed", True, json.JSONDecodeError, "server_error", "server_error"),
        ("break off", True, anthropic.APIStatusError, "unavailable", "server_error"),
    ],
)
def test_a_failure_is_classified_and_raised_as_it_is(  # noqa: PLR0917 - a table
    instrument: Start,
    client: anthropic.Anthropic,
    prompt: str,
    stream: bool,  # noqa: FBT001 - a table
    error: type[Exception],
    kind: str,
    outcome: str,
) -> None:
    """The caller sees the library's exception; one failed call of that kind is counted."""
    instrument()
    with pytest.raises(error):
        list(client.messages.create(**_ask(prompt), stream=stream))
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome=outcome) == 1
    assert value(LLM_ERRORS) == value(LLM_ERRORS, error_type=kind) == 1


def test_the_clients_own_retries_are_part_of_one_call(instrument: Start, fake: FakeModels) -> None:
    """What the caller asked once is one call, however often the client asked."""
    instrument()
    with anthropic.Anthropic(base_url=fake.url, api_key="k", max_retries=2) as client:
        client.messages.create(**_ask("flaky"))
    assert len(fake.asked) == 2
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome="success") == 1


def test_streams_that_are_left_are_counted_once(instrument: Start, client: anthropic.Anthropic) -> None:
    """Closed early is cancelled, dropped is cancelled and abandoned, left after the stop reason is complete."""
    instrument()
    with client.messages.create(**_ask(), stream=True) as stream:
        next(stream)
    with client.messages.stream(**_ask()) as helper:
        next(helper)
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome="cancelled") == 2
    assert value(STREAMS_ABANDONED) == 0
    with client.messages.create(**_ask(), stream=True) as stream:
        next(event for event in stream if event.type == "message_delta")
    assert value(LLM_CALLS, outcome="success") == 1
    dropped = client.messages.create(**_ask(), stream=True)
    next(dropped)
    del dropped
    client.messages.create(**_ask(), stream=True)
    gc.collect()
    assert value(LLM_CALLS, outcome="cancelled") == 4
    assert value(STREAMS_ABANDONED) == value(STREAMS_ABANDONED, component="anthropic") == 2


def test_a_call_has_one_span_without_content(instrument: Start, client: anthropic.Anthropic) -> None:
    """Request and response model, id, finish reasons and usage are on it; where the library makes spans itself, there is still one."""
    with receiver() as backend:
        instrument(traces_endpoint=f"{backend.url}/v1/traces", sampling_rate=1.0)
        client.messages.create(**_ask("a secret prompt"))
        list(client.messages.create(**_ask("a secret prompt"), stream=True))
        sage_obs.flush()
        spans = backend.wait(2)
    assert [span.name for span in spans] == [f"chat {MODEL}"] * 2
    for span in spans:
        found = attributes(span)
        assert [one.string_value for one in found.pop("gen_ai.response.finish_reasons").values] == ["end_turn"]
        assert found == {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": MODEL,
            "gen_ai.response.model": "claude-sonnet-4-5-20250929",
            "gen_ai.response.id": "msg_1",
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 20,
            "gen_ai.system": "anthropic",
            "gen_ai.usage.prompt_tokens": 100,
            "gen_ai.usage.completion_tokens": 20,
            "gen_ai.usage.cache_read.input_tokens": 40,
            "gen_ai.usage.cache_creation.input_tokens": 10,
        }
    assert "secret" not in "".join(str(span) for span in spans)


def test_spans_that_the_caller_chose_are_the_librarys(instrument: Start, fake: FakeModels) -> None:
    """A client that was told to make spans with content makes them, ours makes none, and the call is counted all the same."""
    if not hasattr(anthropic.Anthropic, "open_telemetry"):  # older versions make no spans
        return
    with receiver() as backend:
        instrument(traces_endpoint=f"{backend.url}/v1/traces", sampling_rate=1.0)
        chosen: Any = {"open_telemetry": {"traces": {"content_mode": "content"}}}
        with anthropic.Anthropic(base_url=fake.url, api_key="k", max_retries=0, **chosen) as client:
            client.messages.create(**_ask())
        sage_obs.flush()
        spans = backend.wait(1)
    assert len(spans) == 1
    assert SECRET in str(spans[0])
    assert value(LLM_CALLS) == 1


def test_the_provider_is_who_runs_the_models() -> None:
    """It follows from the class of the client."""

    class AnthropicBedrock:
        pass

    class Mine(AnthropicBedrock):
        pass

    assert provider_of(Mine()) == "aws.bedrock"
    assert provider_of(anthropic.Anthropic(api_key="k")) == "anthropic"
