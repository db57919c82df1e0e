"""A model that wants to know the weather in two cities before it answers, in the words of each provider."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.support.llm_wire import ANTHROPIC_USAGE, GEMINI_USAGE, OPENAI_USAGE, Reply

PROMPT: Final = "how warm is it"
SAID: Final = "Let me look."
CITIES: Final = ("Oslo", "Bern")


def tool_reply(path: str, body: dict[str, Any]) -> Reply | None:
    """The calls, where a question has tools, asks for that and has no results yet; None for any other question."""
    if "tools" not in body or PROMPT not in json.dumps(body) or not _may_call(body) or _results(body):
        return None
    if "Content" in path:
        return _gemini(stream="stream" in path)
    return _anthropic(stream=bool(body.get("stream"))) if path.endswith("/messages") else _openai(stream=bool(body.get("stream")))


def results_of(body: dict[str, Any]) -> list[str]:
    """What a question says that the tools have said."""
    return [str(one) for one in _results(body)]


def _may_call(body: dict[str, Any]) -> bool:
    choice = body.get("tool_choice", body.get("toolConfig"))
    return choice in ("auto", {"type": "auto"}, {"functionCallingConfig": {"mode": "AUTO"}})


def _results(body: dict[str, Any]) -> list[Any]:
    if "contents" in body:
        parts = [part for content in body["contents"] for part in content["parts"]]
        return [part["functionResponse"]["response"]["result"] for part in parts if "functionResponse" in part]
    found = []
    for message in body["messages"]:
        if message["role"] == "tool":
            found.append(message["content"])
        elif isinstance(message["content"], list):
            found += [block["content"] for block in message["content"] if block["type"] == "tool_result"]
    return found


def _json(document: object) -> Reply:
    return Reply(200, "application/json", (json.dumps(document).encode(),))


def _events(*documents: Any) -> Reply:
    texts = [one if isinstance(one, str) else json.dumps(one) for one in documents]
    return Reply(200, "text/event-stream", tuple(f"data: {text}\n\n".encode() for text in texts), streamed=True)


def _openai(*, stream: bool) -> Reply:
    calls = [
        {"id": f"call_{city}", "type": "function", "function": {"name": "weather", "arguments": json.dumps({"city": city})}}
        for city in CITIES
    ]
    if not stream:
        message = {"role": "assistant", "content": SAID, "tool_calls": calls}
        return _json({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": OPENAI_USAGE})

    def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    begun = [
        chunk(tool_calls=[{"index": index, **call, "function": {"name": "weather", "arguments": ""}}]) for index, call in enumerate(calls)
    ]
    pieces = [
        chunk(tool_calls=[{"index": index, "function": {"arguments": piece}}])
        for index, city in enumerate(CITIES)
        for piece in ('{"city": ', f'"{city}"}}')
    ]
    return _events(chunk(content=SAID), *begun, *pieces, chunk("tool_calls"), {"choices": [], "usage": OPENAI_USAGE}, "[DONE]")


def _anthropic(*, stream: bool) -> Reply:
    blocks = [{"type": "tool_use", "id": f"toolu_{city}", "name": "weather", "input": {"city": city}} for city in CITIES]
    whole = {"type": "message", "content": [{"type": "text", "text": SAID}, *blocks], "stop_reason": "tool_use", "usage": ANTHROPIC_USAGE}
    if not stream:
        return _json(whole)
    events: list[Any] = [
        {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": SAID}},
        {"type": "content_block_stop", "index": 0},
    ]
    for index, block in enumerate(blocks, 1):
        events.append({"type": "content_block_start", "index": index, "content_block": {**block, "input": {}}})
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", '{"city": ', f'"{CITIES[index - 1]}"}}')]
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    events += [{"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 20}}, {"type": "message_stop"}]
    return _events(*events)


def _gemini(*, stream: bool) -> Reply:
    calls: list[Any] = [{"functionCall": {"name": "weather", "args": {"city": city}}} for city in CITIES]
    calls[0]["thoughtSignature"] = "c2lnbmVk"

    def said(*parts: Any, **more: Any) -> dict[str, Any]:
        return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, **more}], "usageMetadata": GEMINI_USAGE}

    if not stream:
        return _json(said({"text": SAID}, *calls, finishReason="STOP"))
    return _events(said({"text": SAID}), said(calls[0]), said(calls[1], finishReason="STOP"))
