"""The wire formats, by documents that providers send seldom, and by any that they do not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_agent.llm.providers.base import Completion, Delta, Prompt, ProviderError, Step, ToolCall, ToolSpec
from sage_agent.llm.providers.failures import failed_midway, refused
from sage_agent.llm.providers.http import read_events
from sage_agent.llm.providers.wires import wire_of
from sage_obs.conventions import ErrorType


def _gemini(finish: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": list(parts)}, "finishReason": finish}]}


def _anthropic(reason: str, *blocks: dict[str, Any]) -> dict[str, Any]:
    return {"content": list(blocks), "stop_reason": reason}


@pytest.mark.parametrize(
    ("provider", "document", "expected"),
    [
        ("anthropic", _anthropic("max_tokens", {"type": "text", "text": "hel"}), Completion("hel", None, "length")),
        ("anthropic", _anthropic("model_context_window_exceeded"), Completion("", None, "length")),
        (
            "anthropic",
            _anthropic("end_turn", {"type": "thinking", "thinking": "hm"}, {"text": "a"}, {"text": "b"}),
            Completion("ab", None, "stop"),
        ),
        ("gemini", _gemini("MAX_TOKENS"), Completion("", None, "length")),
        ("gemini", _gemini("STOP", {"text": "hm", "thought": True}, {"text": "a"}, {"text": "b"}), Completion("ab", None, "stop")),
        ("gemini", _gemini("OTHER", {"text": "a"}), Completion("a", None, "other")),
    ],
)
def test_ends_have_the_same_words(provider: str, document: dict[str, Any], expected: Completion) -> None:
    """Thoughts are no answer, and an answer that was cut at its bound is one, even an empty one."""
    assert wire_of(provider).completion(document) == expected


@pytest.mark.parametrize(
    ("provider", "document", "kind"),
    [
        ("anthropic", _anthropic("refusal", {"text": "a"}), ErrorType.CONTENT_FILTER),
        ("anthropic", _anthropic("tool_use", {"type": "tool_use"}), ErrorType.SERVER_ERROR),
        *(
            ("gemini", _gemini(reason, {"text": "a"}), ErrorType.CONTENT_FILTER)
            for reason in ("SAFETY", "RECITATION", "PROHIBITED_CONTENT")
        ),
        ("gemini", _gemini("STOP"), ErrorType.SERVER_ERROR),
        ("openai", {"choices": [{"message": {"content": "a"}, "finish_reason": "content_filter"}]}, ErrorType.CONTENT_FILTER),
    ],
)
def test_ends_that_are_failures(provider: str, document: dict[str, Any], kind: ErrorType) -> None:
    """What a content filter stopped is the filter's, and an answer without text is none."""
    with pytest.raises(ProviderError) as caught:
        wire_of(provider).completion(document)
    assert caught.value.error_type is kind


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"code": 400, "details": [{"reason": "API_KEY_INVALID"}]}, ErrorType.AUTH),
        (400, {"message": "The input token count exceeds the maximum number of tokens allowed"}, ErrorType.CONTEXT_LENGTH),
        (529, {"type": "overloaded_error"}, ErrorType.UNAVAILABLE),
        (400, {"type": "invalid_request_error", "message": "max_tokens: too large"}, ErrorType.INVALID_REQUEST),
        (429, {"details": "odd", "code": [], "message": None}, ErrorType.RATE_LIMITED),
    ],
)
def test_refusals_of_the_providers(status: int, error: dict[str, Any], kind: ErrorType) -> None:
    """Where the status does not say it, the words of the provider do."""
    assert refused(httpx.Response(status, json={"error": error})).error_type is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "overloaded_error"}, ErrorType.UNAVAILABLE),
        ({"code": 429, "status": "RESOURCE_EXHAUSTED"}, ErrorType.RATE_LIMITED),
        ({"code": 503}, ErrorType.UNAVAILABLE),
        ({"type": "api_error"}, ErrorType.SERVER_ERROR),
        ({}, ErrorType.SERVER_ERROR),
    ],
)
def test_errors_inside_a_stream(error: dict[str, Any], kind: ErrorType) -> None:
    """There is no status any more; the error says what it is, or nothing does."""
    assert failed_midway(error).error_type is kind


def test_the_model_of_gemini_is_part_of_the_path() -> None:
    """A tuned model brings its folder along; nothing in a name reaches the query."""
    wire, prompt = wire_of("gemini"), Prompt("hi", 5)
    paths = [
        wire.question(model, prompt, stream=stream).path
        for model, stream in (("m", False), ("m", True), ("tunedModels/t", False), ("a?b", False))
    ]
    assert paths == [
        "/v1beta/models/m:generateContent",
        "/v1beta/models/m:streamGenerateContent?alt=sse",
        "/v1beta/tunedModels/t:generateContent",
        "/v1beta/models/a%3Fb:generateContent",
    ]


_NAMES: Final = (
    *("choices", "message", "delta", "content", "usage", "finish_reason", "prompt_tokens", "error", "type", "text", "stop_reason"),
    *("candidates", "parts", "finishReason", "usageMetadata", "promptTokenCount", "promptFeedback", "input_tokens"),
    *("code", "details", "reason"),
    *("tool_calls", "function", "name", "arguments", "functionCall", "args", "content_block", "index"),
)
_WORDS: Final = (
    "message_start",
    "message_delta",
    "content_block_delta",
    "content_block_start",
    "tool_use",
    "message_stop",
    "STOP",
    "stop",
    "SAFETY",
    "text",
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(_WORDS),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=4),
    max_leaves=15,
)


async def _as_stream(events: list[bytes]) -> AsyncIterator[bytes]:
    for event in events:
        yield event


@given(provider=st.sampled_from(["openai", "anthropic", "gemini"]), documents=st.lists(_JSON, max_size=3))
def test_any_json_is_an_answer_or_a_provider_error(provider: str, documents: list[object]) -> None:
    """Whatever a provider sends, reading it raises ProviderError or nothing."""
    wire = wire_of(provider)

    async def read() -> list[Delta]:
        return [delta async for delta in wire.deltas(_as_stream([json.dumps(one).encode() for one in documents]))]

    with contextlib.suppress(ProviderError):
        asyncio.run(read())
    for document in documents:
        if isinstance(document, dict):
            with contextlib.suppress(ProviderError):
                assert isinstance(wire.completion(document), Completion)
            assert isinstance(refused(httpx.Response(400, json=document)), ProviderError)


@given(
    st.lists(st.text(alphabet="ab{}\u2028é:", min_size=1).filter(str.strip), max_size=4), st.integers(1, 7), st.sampled_from(["\n", "\r\n"])
)
def test_events_are_the_same_however_they_are_cut(texts: list[str], size: int, end: str) -> None:
    """The pieces in which a stream arrives make no difference, in the middle of a character either."""
    wire = "".join(f": comment{end}event: x{end}data: {text}{end}{end}" for text in texts).encode()

    async def read() -> list[bytes]:
        return [event async for event in read_events(_as_stream([wire[at : at + size] for at in range(0, len(wire), size)]))]

    assert [event.decode() for event in asyncio.run(read())] == texts


_TOOL: Final = ToolSpec("weather", "How warm it is.", '{"type":"object"}')
_CALL: Final = ToolCall("c1", "weather", '{"city":"Oslo"}')
_TOOLED: Final = Prompt("how warm?", 5, tools=(_TOOL,), steps=(Step("", (_CALL,), ("4",)),))


@pytest.mark.parametrize(
    ("provider", "place", "expected"),
    [
        ("openai", ("tools", 0, "function"), {"name": "weather", "description": "How warm it is.", "parameters": {"type": "object"}}),
        ("openai", ("messages", 2), {"role": "tool", "tool_call_id": "c1", "content": "4"}),
        ("openai", ("messages", 1, "tool_calls", 0, "function"), {"name": "weather", "arguments": '{"city":"Oslo"}'}),
        ("anthropic", ("tools", 0), {"name": "weather", "description": "How warm it is.", "input_schema": {"type": "object"}}),
        ("anthropic", ("messages", 1, "content"), [{"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}}]),
        ("anthropic", ("messages", 2, "content"), [{"type": "tool_result", "tool_use_id": "c1", "content": "4"}]),
        (
            "gemini",
            ("tools", 0, "functionDeclarations", 0),
            {"name": "weather", "description": "How warm it is.", "parametersJsonSchema": {"type": "object"}},
        ),
        ("gemini", ("contents", 2, "parts", 0, "functionResponse"), {"name": "weather", "response": {"result": "4"}, "id": "c1"}),
    ],
)
def test_tools_are_described_and_answered_in_the_providers_words(provider: str, place: tuple[str | int, ...], expected: object) -> None:
    """The definition, the call as the model made it, and the result beside its id."""
    found: Any = wire_of(provider).question("m", _TOOLED, stream=False).body
    for key in place:
        found = found[key]
    assert found == expected


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini"])
def test_arguments_that_are_no_object_go_back_as_the_provider_bears_them(provider: str) -> None:
    """A model that wrote nonsense is asked again all the same."""
    for arguments in ("", "{", "[1]", "null"):
        prompt = Prompt("hi", 5, tools=(_TOOL,), steps=(Step("", (ToolCall("c1", "weather", arguments),), ("Error",)),))
        assert json.dumps(wire_of(provider).question("m", prompt, stream=True).body)


@pytest.mark.parametrize(
    ("base_url", "field"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://mine.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("http://localhost:8000/v1", "max_tokens"),
    ],
)
def test_the_bound_has_the_name_that_the_server_knows(base_url: str, field: str) -> None:
    """OpenAI's own models refuse `max_tokens`; other servers know nothing else."""
    body = wire_of("openai", base_url).question("m", Prompt("hi", 5), stream=False).body
    assert {name: body[name] for name in body if name.startswith("max_")} == {field: 5}
