"""The real OpenAI client against a server on loopback, in its newest version; test_oldest_clients.py runs this with the oldest."""

from __future__ import annotations

import asyncio
import gc
import json
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pydantic
import pytest

import sage_obs
from sage_obs.conventions import (
    INTERNAL_ERRORS,
    LLM_CACHED_TOKENS,
    LLM_CALL_DURATION,
    LLM_CALLS,
    LLM_COST,
    LLM_ERRORS,
    LLM_REASONING_TOKENS,
    LLM_TIME_TO_FIRST_TOKEN,
    LLM_TOKENS,
    REQUEST_OVERHEAD,
    STREAMS_ABANDONED,
)
from sage_obs.metrics import active
from sage_obs.tracing.context import request_var
from tests.support.llm_server import FakeModels, fake_models
from tests.support.llm_wire import PIECES, SECRET
from tests.support.metrics import value
from tests.support.otlp import attributes, receiver

Start = Callable[..., sage_obs.Handle]
Ask = Callable[..., Any]


@pytest.fixture
def fake() -> Iterator[FakeModels]:
    """The server."""
    with fake_models() as found:
        yield found


@pytest.fixture
def client(fake: FakeModels) -> Iterator[openai.OpenAI]:
    """A synchronous client of the server that does not retry."""
    with openai.OpenAI(base_url=f"{fake.url}/v1", api_key="k", max_retries=0) as found:
        yield found


def _chat(prompt: str = "hi", **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}], **more}


def _used() -> tuple[float, ...]:
    """Input, output, cache reads, cache writes and reasoning, as counted."""
    return (
        value(LLM_TOKENS, type="input"),
        value(LLM_TOKENS, type="output"),
        value(LLM_CACHED_TOKENS, kind="read"),
        value(LLM_CACHED_TOKENS, kind="write"),
        value(LLM_REASONING_TOKENS),
    )


def _asynchronously(fake: FakeModels, work: Callable[[openai.AsyncOpenAI], Any]) -> Any:
    async def main() -> Any:
        async with openai.AsyncOpenAI(base_url=f"{fake.url}/v1", api_key="k", max_retries=0) as client:
            return await work(client)

    return asyncio.run(main())


def _where(context: dict[str, Any]) -> str:
    """The files that an error the event loop reports went through."""
    return "".join(traceback.format_exception(context["exception"])) if "exception" in context else str(context)


def _helper(client: Any) -> Any:
    """`chat.completions.stream`, which the older versions have under `beta`."""
    return getattr(client.chat.completions, "stream", None) or client.beta.chat.completions.stream


def test_a_chat_completion_is_one_call_with_its_usage_and_cost(instrument: Start, client: openai.OpenAI) -> None:
    """Calls, duration, tokens, their parts and the cost are counted once, and the answer is the library's own."""
    instrument()
    answer = client.chat.completions.create(**_chat())
    assert type(answer).__name__ == "ChatCompletion"
    assert answer.choices[0].message.content == SECRET
    assert value(LLM_CALLS) == value(LLM_CALLS, provider="openai", model="gpt-4o", operation="chat", outcome="success") == 1
    assert value(LLM_CALL_DURATION, suffix="_count", model="gpt-4o") == 1
    assert _used() == (100, 20, 40, 0, 8)
    assert value(LLM_COST, model="gpt-4o") == pytest.approx(60 * 2.5e-6 + 40 * 1.25e-6 + 20 * 10e-6)
    assert value(LLM_TIME_TO_FIRST_TOKEN, suffix="_count") == 0


def test_a_client_made_before_instrument_is_measured_and_afterwards_is_not(instrument: Start, client: openai.OpenAI) -> None:
    """What is patched is the class, and `uninstrument` takes it back."""
    client.chat.completions.create(**_chat())
    instrument()
    client.chat.completions.create(**_chat())
    assert value(LLM_CALLS) == 1
    store = active.store()
    sage_obs.uninstrument()
    client.chat.completions.create(**_chat())
    assert store.cell(LLM_CALLS, "openai", "gpt-4o", "chat", "success").value == 1


def test_responses_embeddings_and_completions_are_calls_too(instrument: Start, client: openai.OpenAI) -> None:
    """Each under its operation, with the usage its provider reports; what is no inference is not counted."""
    instrument()
    assert client.responses.create(model="gpt-4o", input="hi").output_text == SECRET
    assert _used() == (100, 20, 40, 10, 8)
    client.embeddings.create(model="text-embedding-3-small", input="hi")
    assert value(LLM_TOKENS, model="text-embedding-3-small", type="input") == 7
    client.completions.create(model="gpt-3.5-turbo-instruct", prompt="hi")
    client.post("/moderations", cast_to=dict[str, Any], body={"input": "hi"})
    assert [value(LLM_CALLS, operation=name) for name in ("chat", "embeddings", "text_completion")] == [1, 1, 1]
    assert value(LLM_CALLS) == 3


def test_a_stream_is_one_call_that_ends_with_its_last_chunk(instrument: Start, client: openai.OpenAI, fake: FakeModels) -> None:
    """Usage is asked for and the chunk it comes in is kept back; the stream is the library's own type, with its attributes."""
    instrument()
    stream = client.chat.completions.create(**_chat(), stream=True)
    assert type(stream) is openai.Stream
    assert stream.response.status_code == 200
    assert value(LLM_CALLS) == 0
    chunks = list(stream)
    assert fake.asked[-1]["stream_options"] == {"include_usage": True}
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", *PIECES, None]
    assert all(chunk.usage is None for chunk in chunks)
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome="success") == 1
    assert value(LLM_TIME_TO_FIRST_TOKEN, suffix="_count") == value(LLM_CALL_DURATION, suffix="_count") == 1
    assert _used() == (100, 20, 40, 0, 8)
    assert list(stream) == []
    stream.close()
    assert value(LLM_CALLS) == 1
    assert not {"close", "aclose", "read", "aread"} & vars(stream.response).keys()


def test_asynchronous_calls_and_streams_are_measured_alike(instrument: Start, fake: FakeModels) -> None:
    """One call each, for a whole answer, a stream, the stream helper, responses and embeddings."""
    instrument()

    async def work(client: openai.AsyncOpenAI) -> None:
        assert (await client.chat.completions.create(**_chat())).choices[0].message.content == SECRET
        stream = await client.chat.completions.create(**_chat(), stream=True)
        assert type(stream) is openai.AsyncStream
        assert [chunk.choices[0].delta.content async for chunk in stream] == ["", *PIECES, None]
        async with _helper(client)(**_chat()) as helper:
            assert (await helper.get_final_completion()).choices[0].message.content == SECRET
        async for _event in await client.responses.create(model="gpt-4o", input="hi", stream=True):
            pass
        await client.embeddings.create(model="gpt-4o", input="hi")
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(**_chat("rate limit"))

    _asynchronously(fake, work)
    assert value(LLM_CALLS, outcome="success") == 5
    assert value(LLM_CALLS, outcome="rejected") == 1
    assert value(LLM_TOKENS, type="input") == 4 * 100 + 7
    assert value(LLM_TIME_TO_FIRST_TOKEN, suffix="_count") == 3


def test_the_stream_helpers_are_one_call_each(instrument: Start, client: openai.OpenAI) -> None:
    """Their events and final objects are what they are without us, and the usage is counted."""
    instrument()
    with _helper(client)(**_chat()) as stream:
        events = list(stream)
    assert [event.type for event in events].count("chunk") == 2 + len(PIECES)
    assert stream.get_final_completion().choices[0].message.content == SECRET
    assert stream.get_final_completion().usage is None
    assert value(LLM_CALLS, outcome="success") == 1
    if hasattr(client.responses, "stream"):
        with client.responses.stream(model="gpt-4o", input="hi") as answers:
            assert answers.get_final_response().output_text == SECRET
    else:
        assert list(client.responses.create(model="gpt-4o", input="hi", stream=True))
    assert value(LLM_CALLS, outcome="success") == 2
    assert _used() == (200, 40, 80, 10, 16)


@pytest.mark.parametrize("options", [{"include_usage": True}, {"include_usage": False}], ids=["asked", "refused"])
def test_a_callers_choice_about_usage_is_not_touched(instrument: Start, client: openai.OpenAI, fake: FakeModels, options: Any) -> None:
    """Who asks for usage gets the chunk, who refuses it gets none and the call has no tokens."""
    instrument()
    chunks = list(client.chat.completions.create(**_chat(), stream=True, stream_options=options))
    assert fake.asked[-1]["stream_options"] == options
    assert [chunk.usage is not None for chunk in chunks] == [False] * 5 + [True] * options["include_usage"]
    assert value(LLM_TOKENS, type="input") == 100 * options["include_usage"]


def test_a_server_that_refuses_the_question_for_usage_is_asked_again_without(
    instrument: Start, client: openai.OpenAI, fake: FakeModels
) -> None:
    """The caller gets the stream it would have got, as one call, and the next one is not asked for usage at all."""
    instrument()
    for _ in range(2):
        assert len(list(client.chat.completions.create(**_chat("no stream options"), stream=True))) == 5
    assert ["stream_options" in body for body in fake.asked] == [True, False, False]
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome="success") == 2


def test_raw_responses_keep_their_types_and_their_bytes(instrument: Start, client: openai.OpenAI, fake: FakeModels) -> None:
    """Whole or streamed, parsed or not, each is one call; nothing is added to a question whose bytes the caller may read."""
    instrument()
    raw = client.chat.completions.with_raw_response.create(**_chat())
    assert type(raw).__name__ == "LegacyAPIResponse"
    assert raw.parse() is raw.parse()
    assert (value(LLM_CALLS), value(LLM_TOKENS, type="input")) == (1, 100)
    streamed = client.chat.completions.with_raw_response.create(**_chat(), stream=True)
    stream = streamed.parse()
    assert type(stream) is openai.Stream
    assert len(list(stream)) == 5
    assert "stream_options" not in fake.asked[-1]
    assert value(LLM_CALLS, outcome="success") == 2
    with client.chat.completions.with_streaming_response.create(**_chat()) as response:
        assert type(response).__name__ == "APIResponse"
        assert json.loads(response.read())["id"] == response.parse().id == "chatcmpl-1"
    assert (value(LLM_CALLS, outcome="success"), value(LLM_TOKENS, type="input")) == (3, 200)
    with client.chat.completions.with_streaming_response.create(**_chat(), stream=True) as response:
        assert b"".join(response.iter_bytes()).endswith(b"data: [DONE]\n\n")
    with client.chat.completions.with_streaming_response.create(**_chat(), stream=True) as response:
        assert len(list(response.parse())) == 5
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome="success") == 5
    assert value(LLM_TIME_TO_FIRST_TOKEN, suffix="_count") == 2


def test_asynchronous_raw_responses_are_one_call_each(instrument: Start, fake: FakeModels) -> None:
    """Read, parsed, streamed or left alone, they are counted once when they are over."""
    instrument()

    async def work(client: openai.AsyncOpenAI) -> None:
        raw = await client.chat.completions.with_raw_response.create(**_chat())
        assert raw.parse().choices[0].message.content == SECRET
        create = client.chat.completions.with_streaming_response.create
        async with create(**_chat()) as response:
            assert (await response.parse()).id == "chatcmpl-1"
        async with create(**_chat(), stream=True) as response:
            assert [chunk async for chunk in await response.parse()]
        async with create(**_chat()):
            pass

    _asynchronously(fake, work)
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome="success") == 4
    assert value(LLM_TOKENS, type="input") == 200


@pytest.mark.parametrize(
    ("prompt", "stream", "error", "kind", "outcome"),
    [
        ("rate limit", False, openai.RateLimitError, "rate_limited", "rejected"),
        ("rate limit", True, openai.RateLimitError, "rate_limited", "rejected"),
        ("broken", False, openai.InternalServerError, "server_error", "server_error"),
        ("overloaded", False, openai.InternalServerError, "unavailable", "server_error"),
        ("key", False, openai.AuthenticationError, "auth", "client_error"),
        ("too long", False, openai.BadRequestError, "context_length", "client_error"),
        ("hang up", False, openai.APIConnectionError, "unavailable", "server_error"),
        ("cut", True, Exception, "unavailable", "server_error"),
        ("malformed", True, json.JSONDecodeError, "server_error", "server_error"),
        ("break off", True, openai.APIError, "rate_limited", "rejected"),
    ],
)
def test_a_failure_is_classified_and_raised_as_it_is(  # noqa: PLR0917 - a table
    instrument: Start,
    client: openai.OpenAI,
    fake: FakeModels,
    prompt: str,
    stream: bool,  # noqa: FBT001 - a table
    error: type[Exception],
    kind: str,
    outcome: str,
) -> None:
    """The caller sees the library's exception; one failed call of that kind is counted, by either client."""
    instrument()

    def ask() -> None:
        answer = client.chat.completions.create(**_chat(prompt), stream=stream)
        if stream:
            list(answer)

    async def ask_too(client: openai.AsyncOpenAI) -> None:
        answer: Any = await client.chat.completions.create(**_chat(prompt), stream=stream)
        if stream:
            async for _ in answer:
                pass

    with pytest.raises(error):
        ask()
    with pytest.raises(error):
        _asynchronously(fake, ask_too)
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome=outcome) == 2
    assert value(LLM_ERRORS) == value(LLM_ERRORS, error_type=kind) == 2


def test_an_answer_that_failed_inside_a_success_is_a_failed_call(instrument: Start, client: openai.OpenAI) -> None:
    """A response whose status is failed, whole or streamed, and a page that is no JSON, raise nothing and count as failures."""
    instrument()
    assert client.responses.create(model="gpt-4o", input="fail").status == "failed"
    list(client.responses.create(model="gpt-4o", input="fail", stream=True))
    assert value(LLM_ERRORS, error_type="rate_limited") == 2
    client.chat.completions.create(**_chat("not json"))
    assert value(LLM_ERRORS, error_type="server_error") == 1
    assert value(LLM_CALLS, outcome="success") == 0


def test_an_answer_that_the_library_cannot_parse_was_a_call_all_the_same(instrument: Start, client: openai.OpenAI) -> None:
    """The model has answered and was paid; that the answer is not what the caller wanted is the caller's exception."""
    instrument()

    class Wanted(pydantic.BaseModel):
        number: int

    parse = getattr(client.chat.completions, "parse", None) or client.beta.chat.completions.parse
    with pytest.raises(pydantic.ValidationError):
        parse(**_chat(), response_format=Wanted)
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome="success") == 1
    assert value(LLM_TOKENS, type="input") == 100


def test_the_clients_own_retries_are_part_of_one_call(instrument: Start, fake: FakeModels) -> None:
    """What the caller asked once is one call, however often the client asked."""
    instrument()
    with openai.OpenAI(base_url=f"{fake.url}/v1", api_key="k", max_retries=2) as client:
        client.chat.completions.create(**_chat("flaky"))
    assert len(fake.asked) == 2
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome="success") == 1


def test_a_stream_that_is_closed_early_was_cancelled_unless_the_model_had_finished(instrument: Start, client: openai.OpenAI) -> None:
    """It is counted once when it is closed, however often; who leaves after the finish reason has had the whole answer."""
    instrument()
    with client.chat.completions.create(**_chat(), stream=True) as stream:
        next(stream)
    stream.close()
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome="cancelled") == 1
    with client.chat.completions.create(**_chat(), stream=True) as stream:
        next(chunk for chunk in stream if chunk.choices[0].finish_reason)
    with _helper(client)(**_chat()) as helper:
        next(helper)
    assert value(LLM_CALLS, outcome="success") == 1
    assert value(LLM_CALLS, outcome="cancelled") == 2
    assert value(STREAMS_ABANDONED) == 0


def test_an_abandoned_stream_is_finished_and_counted_when_it_is_collected(instrument: Start, client: openai.OpenAI) -> None:
    """Begun or not, who drops it without closing has cancelled it; that is seen once, and apart."""
    instrument()
    stream = client.chat.completions.create(**_chat(), stream=True)
    next(stream)
    del stream
    client.chat.completions.create(**_chat(), stream=True)
    raw = client.chat.completions.with_raw_response.create(**_chat(), stream=True)
    del raw
    gc.collect()
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome="cancelled") == 3
    assert value(STREAMS_ABANDONED) == value(STREAMS_ABANDONED, component="openai") == 3


def test_asynchronous_streams_that_are_left_raise_nothing(instrument: Start, fake: FakeModels) -> None:
    """Left by a break, a close or the collector, each is one cancelled call, and nothing of ours makes the loop complain.

    The library's own generators do now and then, as the collector closes inner and outer ones in any order.
    """
    instrument()
    complaints: list[str] = []

    async def begun(client: openai.AsyncOpenAI) -> Any:
        stream = await client.chat.completions.create(**_chat(), stream=True)
        await anext(aiter(stream))
        return stream

    async def work(client: openai.AsyncOpenAI) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(_where(context)))
        await (await begun(client)).close()
        async with await client.chat.completions.create(**_chat(), stream=True):
            pass
        await begun(client)

        async def relay() -> Any:
            async for chunk in await client.chat.completions.create(**_chat(), stream=True):
                yield chunk

        relayed = relay()
        await anext(relayed)
        await relayed.aclose()
        for _ in range(3):  # the loop closes the library's generators around the streams first
            await asyncio.sleep(0)
        gc.collect()

    _asynchronously(fake, work)
    gc.collect()
    assert not [where for where in complaints if "sage_obs" in where]
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome="cancelled") == 4
    assert value(STREAMS_ABANDONED) == 2


def test_a_call_inside_a_call_that_is_measured_by_hand_counts_once(instrument: Start, client: openai.OpenAI) -> None:
    """`llm_call` around a client is the one call; after it the client's are counted again."""
    instrument()
    with sage_obs.llm_call("mine", "gpt-4o") as call:
        client.chat.completions.create(**_chat())
        call.usage(input=3, output=1)
    assert value(LLM_CALLS) == value(LLM_CALLS, provider="mine") == 1
    client.chat.completions.create(**_chat())
    assert value(LLM_CALLS, provider="openai") == 1


def test_waiting_for_the_model_is_not_overhead_and_working_on_its_chunks_is(instrument: Start, client: openai.OpenAI) -> None:
    """Between chunks the request's own time passes; a stream that is never read does not hide the rest of the request."""
    instrument()

    @sage_obs.agent("reader")
    def reader() -> None:
        request = request_var.get()
        assert request is not None
        stream = client.chat.completions.create(**_chat(), stream=True)
        waited = request.waiting.seconds()
        assert waited > 0
        assert request.waiting.seconds() == waited
        next(stream)
        waited = request.waiting.seconds()
        assert request.waiting.seconds() == waited
        list(stream)
        assert request.waiting.seconds() > waited
        unread = client.chat.completions.create(**_chat(), stream=True)
        waited = request.waiting.seconds()
        assert request.waiting.seconds() == waited
        unread.close()
        assert request.waiting.seconds() == waited

    reader()
    assert value(REQUEST_OVERHEAD, suffix="_count", operation="reader") == 1


def test_the_span_has_the_conventions_attributes_and_no_content(instrument: Start, client: openai.OpenAI) -> None:
    """Request and response model, id, finish reasons and usage with its parts; of what was said, nothing."""
    with receiver() as backend:
        instrument(traces_endpoint=f"{backend.url}/v1/traces", sampling_rate=1.0)
        client.chat.completions.create(**_chat("a secret prompt"))
        list(client.chat.completions.create(**_chat("a secret prompt"), stream=True))
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(**_chat("rate limit"))
        sage_obs.flush()
        spans = [span for span in backend.wait(3) if span.name == "chat gpt-4o"]
    whole = attributes(spans[0])
    reasons = [one.string_value for one in whole.pop("gen_ai.response.finish_reasons").values]
    assert reasons == ["stop"]
    assert whole == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.system": "openai",
        "gen_ai.usage.prompt_tokens": 100,
        "gen_ai.usage.completion_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 40,
        "gen_ai.usage.reasoning.output_tokens": 8,
    }
    streamed = attributes(spans[1])
    assert {**streamed, "gen_ai.response.finish_reasons": None} == {**whole, "gen_ai.response.finish_reasons": None}
    assert attributes(spans[2])["error.type"] == "rate_limited"
    assert "secret" not in "".join(str(span) for span in spans)


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://x.openai.azure.com/openai/v1/", "azure.ai.openai"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://generativelanguage.googleapis.com/v1beta/openai/", "gcp.gemini"),
        ("https://europe-west4-aiplatform.googleapis.com/v1", "gcp.vertex_ai"),
        ("http://localhost:8000/v1", "openai"),
    ],
)
def test_the_provider_is_whose_models_are_asked(url: str, provider: str) -> None:
    """It follows from the host a client is pointed at, or from the class."""
    from sage_obs.integrations.openai import provider_of

    assert provider_of(openai.OpenAI(base_url=url, api_key="k")) == provider
    azure = openai.AzureOpenAI(api_key="k", api_version="2024-10-21", azure_endpoint="https://x.example.com")
    assert provider_of(azure) == "azure.ai.openai"


def test_an_azure_client_is_measured(instrument: Start, fake: FakeModels) -> None:
    """Its deployments are models, and the path it makes of them does not hide what is asked."""
    instrument()
    with openai.AzureOpenAI(api_key="k", api_version="2024-10-21", azure_endpoint=fake.url, max_retries=0) as client:
        client.chat.completions.create(**_chat())
    assert value(LLM_CALLS, provider="azure.ai.openai", model="gpt-4o", outcome="success") == 1


def test_an_error_in_the_telemetry_never_reaches_the_caller(
    instrument: Start, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers and streams arrive as they are when reading them fails, and what failed is counted."""
    from sage_obs import testing
    from sage_obs.integrations import openai as integration

    instrument(log_output="/dev/null")
    testing.reraise_internal_errors(on=False)
    monkeypatch.setattr(integration, "of_openai", lambda _: 1 / 0)
    assert client.chat.completions.create(**_chat()).choices[0].message.content == SECRET
    assert len(list(client.chat.completions.create(**_chat(), stream=True))) == 6
    monkeypatch.setattr(integration, "provider_of", lambda _: 1 / 0)
    assert client.chat.completions.create(**_chat()).choices[0].message.content == SECRET
    assert value(LLM_CALLS, outcome="success") == 2
    assert value(INTERNAL_ERRORS, component="openai") == 3
