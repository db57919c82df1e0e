"""The adapter for OpenAI-compatible servers, over a transport in memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_agent.llm.providers.base import Completion, Delta, Prompt, ProviderError, Usage
from sage_agent.llm.providers.failures import read_retry_after
from sage_agent.llm.providers.http import HttpProvider, open_client
from sage_agent.llm.providers.openai import OpenAIWire
from sage_agent.llm.providers.reading import read_document
from sage_obs.conventions import ErrorType

_GOOD = {"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
Handler = Callable[[httpx.Request], httpx.Response]


def _provider(handler: Handler, *, api_key: str = "sk-1") -> HttpProvider:
    client = open_client(connections=2, transport=httpx.MockTransport(handler))
    return HttpProvider(OpenAIWire(), client, model="m-1", base_url="http://llm/v1", api_key=api_key)


def _ask(handler: Handler, *, api_key: str = "sk-1") -> Completion:
    async def run() -> Completion:
        provider = _provider(handler, api_key=api_key)
        try:
            return await provider.complete(Prompt("hi", max_tokens=7))
        finally:
            await provider.close()

    return asyncio.run(run())


def _stream(handler: Handler) -> list[Delta]:
    async def run() -> list[Delta]:
        provider = _provider(handler)
        try:
            return [delta async for delta in provider.stream(Prompt("hi", max_tokens=7))]
        finally:
            await provider.close()

    return asyncio.run(run())


def read_completion(body: bytes) -> Completion:
    """The answer in a body."""
    return OpenAIWire().completion(read_document(body))


def test_the_question_is_a_chat_completion() -> None:
    """The request has the path, the key, the model, the prompt and the bound of the configuration."""
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=_GOOD)

    assert _ask(handler) == Completion("hello", Usage(3, 4), "stop")
    assert str(seen[0].url) == "http://llm/v1/chat/completions"
    assert seen[0].headers["authorization"] == "Bearer sk-1"
    assert json.loads(seen[0].content) == {"model": "m-1", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 7}


def test_without_a_key_no_authorization_is_sent() -> None:
    """A local server is not sent an empty key."""

    def handler(request: httpx.Request) -> httpx.Response:
        assert "authorization" not in request.headers
        return httpx.Response(200, json=_GOOD)

    assert _ask(handler, api_key="").text == "hello"


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, None, ErrorType.INVALID_REQUEST),
        (400, "context_length_exceeded", ErrorType.CONTEXT_LENGTH),
        (400, "content_filter", ErrorType.CONTENT_FILTER),
        (401, None, ErrorType.AUTH),
        (403, None, ErrorType.AUTH),
        (404, None, ErrorType.INVALID_REQUEST),
        (408, None, ErrorType.TIMEOUT),
        (429, None, ErrorType.RATE_LIMITED),
        (500, None, ErrorType.SERVER_ERROR),
        (502, None, ErrorType.UNAVAILABLE),
        (503, None, ErrorType.UNAVAILABLE),
        (504, None, ErrorType.TIMEOUT),
        (302, None, ErrorType.INVALID_REQUEST),
    ],
)
def test_refusals_are_classified(status: int, code: str | None, expected: ErrorType) -> None:
    """Each refusal has its place in the taxonomy, by its code where it has one."""
    with pytest.raises(ProviderError, match=str(status)) as caught:
        _ask(lambda _: httpx.Response(status, json={"error": {"code": code, "message": "key sk-secret"}}))
    assert caught.value.error_type is expected
    assert "sk-secret" not in caught.value.message


def test_retry_after_is_kept() -> None:
    """A 429 carries what the provider asked for."""
    with pytest.raises(ProviderError) as caught:
        _ask(lambda _: httpx.Response(429, headers={"retry-after": "17"}))
    assert caught.value.retry_after == 17


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("3", 3),
        ("999999999999", 3600),
        ("-1", None),
        ("soon", None),
        ("²", None),
        ("Thu, 01 Jan 1970 00:00:30 GMT", 20),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, expected: int | None) -> None:
    """Both forms of RFC 9110 are read and capped, nonsense is none."""
    assert read_retry_after(value, now=10.0) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx.ConnectError, ErrorType.UNAVAILABLE),
        (httpx.ReadError, ErrorType.UNAVAILABLE),
        (httpx.ConnectTimeout, ErrorType.UNAVAILABLE),
        (httpx.ReadTimeout, ErrorType.TIMEOUT),
    ],
)
def test_a_server_that_cannot_be_reached(error: type[httpx.TransportError], expected: ErrorType) -> None:
    """Failures below HTTP are unavailable or timeout."""

    def handler(request: httpx.Request) -> httpx.Response:
        raise error("no", request=request)

    with pytest.raises(ProviderError) as caught:
        _ask(handler)
    assert caught.value.error_type is expected


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"choices": []}', b'{"choices": [5]}', b'{"choices": [{"message": {"content": null}}]}'],
)
def test_an_answer_that_cannot_be_read(body: bytes) -> None:
    """200 with anything but a completion is a failure of the server."""
    with pytest.raises(ProviderError, match="cannot be read") as caught:
        read_completion(body)
    assert caught.value.error_type is ErrorType.SERVER_ERROR


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["choices", "message", "content", "usage", "a"]), inner),
    max_leaves=12,
)


@given(_JSON)
def test_any_json_is_an_answer_or_a_provider_error(document: object) -> None:
    """Whatever a server answers, reading it raises ProviderError or nothing."""
    with contextlib.suppress(ProviderError):
        assert isinstance(read_completion(json.dumps(document).encode()), Completion)


@pytest.mark.parametrize("usage", [None, [], {}, {"prompt_tokens": "3"}, {"prompt_tokens": -1, "completion_tokens": 1}])
def test_usage_that_is_missing_or_odd_is_unknown(usage: object) -> None:
    """Token counts are never guessed."""
    assert read_completion(json.dumps({**_GOOD, "usage": usage}).encode()).usage is None


def test_a_stream_is_read_to_its_end() -> None:
    """Pieces come in order, comments are skipped, the usage comes last."""
    lines = [
        ": hello",
        'data: {"choices": [{"delta": {"role": "assistant"}}]}',
        'data: {"choices": [{"delta": {"content": "hel"}}], "usage": null}',
        'data:{"choices": [{"delta": {"content": "lo"}}]}',
        'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}',
        "data: [DONE]",
    ]
    deltas = _stream(lambda _: httpx.Response(200, text="\n\n".join(lines) + "\n\n"))
    assert "".join(delta.text for delta in deltas) == "hello"
    assert deltas[-1].usage == Usage(3, 4)


def test_a_character_that_python_takes_for_a_line_end_is_text() -> None:
    """JSON may hold U+2028 and its like as they are; only line feeds end a line of the stream, with or without a carriage return."""
    event = json.dumps({"choices": [{"delta": {"content": "a\u2028b\x85c"}}]}, ensure_ascii=False)
    deltas = _stream(lambda _: httpx.Response(200, text=f"data: {event}\r\n\r\ndata: [DONE]\r\n\r\n"))
    assert [delta.text for delta in deltas] == ["a\u2028b\x85c"]


@pytest.mark.parametrize(
    "text",
    ['data: {"choices": [{"delta": {"content": "hel"}}]}\n\n', "data: {oops\n\n", 'data: {"error": {"message": "overloaded"}}\n\n'],
    ids=["cut off", "malformed", "error inside"],
)
def test_a_broken_stream_is_an_error(text: str) -> None:
    """A stream that stops before its end is never taken for a whole answer."""
    with pytest.raises(ProviderError) as caught:
        _stream(lambda _: httpx.Response(200, text=text))
    assert caught.value.error_type is ErrorType.SERVER_ERROR


def test_a_refused_stream_is_classified() -> None:
    """A refusal before the first piece is the same error as without streaming."""
    with pytest.raises(ProviderError) as caught:
        _stream(lambda _: httpx.Response(429, headers={"retry-after": "2"}))
    assert (caught.value.error_type, caught.value.retry_after) == (ErrorType.RATE_LIMITED, 2)
