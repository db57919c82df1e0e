"""Answers as the providers write them. Each says a secret, which must not be found in any telemetry."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

SECRET: Final = "the answer is a secret"  # noqa: S105 - a seed to look for
PIECES: Final = ("the answer", " is a", " secret")
REFUSALS: Final = {"rate limit": 429, "broken": 500, "key": 401, "too long": 400, "overloaded": 503}
OPENAI_USAGE: Final = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 40},
    "completion_tokens_details": {"reasoning_tokens": 8},
}
RESPONSES_USAGE: Final = {
    "input_tokens": 100,
    "output_tokens": 20,
    "total_tokens": 120,
    "input_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 10},
    "output_tokens_details": {"reasoning_tokens": 8},
}
ANTHROPIC_USAGE: Final = {"input_tokens": 50, "output_tokens": 20, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 10}


@dataclass(frozen=True, slots=True)
class Events:
    """The texts of a stream; where it is `cut` the connection ends in the middle."""

    texts: tuple[str, ...]
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes over the wire: a body in one piece, or a stream in several. With status 0 the connection is closed instead."""

    status: int
    kind: str
    pieces: tuple[bytes, ...]
    streamed: bool = False
    cut: bool = False
    headers: tuple[tuple[str, str], ...] = ()


_ODD: Final = {"hang up": Reply(0, "", ()), "not json": Reply(200, "text/html", (b"<html>hello</html>",))}


def reply(path: str, body: dict[str, Any], *, before: int) -> Reply:
    """The reply to a question that `before` others came before."""
    prompt = prompt_of(body)
    if prompt == "no stream options" and "stream_options" in body:
        return _json(400, {"error": {"message": "Unknown parameter: stream_options", "type": "invalid_request_error"}})
    if prompt == "flaky" and not before:
        return _json(500, {"error": {"message": "again"}}, ("retry-after-ms", "1"))
    if prompt in REFUSALS:
        return _json(REFUSALS[prompt], refusal(path, prompt))
    if prompt in _ODD or prompt == "limited" or (prompt == "limited once" and not before):
        return _ODD.get(prompt) or _limited(path)
    found = answer(path, body, prompt)
    if isinstance(found, Events):
        return Reply(200, "text/event-stream", tuple(text.encode() for text in found.texts), streamed=True, cut=found.cut)
    return _json(200, found)


def _json(status: int, document: object, *headers: tuple[str, str]) -> Reply:
    return Reply(status, "application/json", (json.dumps(document).encode(),), headers=headers)


def _limited(path: str) -> Reply:
    """Gemini has the time to wait in the body."""
    if "Content" not in path:
        return _json(429, {"type": "error", "error": {"type": "rate_limit_error", "message": "no"}}, ("retry-after", "7"))
    wait = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "6.2s"}
    return _json(429, {"error": {"code": 429, "message": "no", "status": "RESOURCE_EXHAUSTED", "details": [wait]}})


def prompt_of(body: dict[str, Any]) -> str:
    """What the question says, wherever its provider has it."""
    if "requests" in body:
        return str(body["requests"][0]["content"]["parts"][0]["text"])
    if "contents" in body:
        return str(body["contents"][-1]["parts"][0].get("text", ""))
    if "messages" in body and body["messages"][-1]["role"] == "tool":
        return ""
    said = body["messages"][-1]["content"] if "messages" in body else body.get("input", body.get("prompt", ""))
    return str(said[0].get("text", "")) if isinstance(said, list) and isinstance(said[0], dict) else str(said)


def refusal(path: str, prompt: str) -> dict[str, Any]:
    """The body of an error."""
    too_long = prompt == "too long"
    if "Content" in path:
        message = "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576)." if too_long else "no"
        return {"error": {"code": REFUSALS[prompt], "message": message, "status": "INVALID_ARGUMENT"}}
    if path.startswith("/v1/messages"):
        message = "prompt is too long: 210000 tokens > 200000 maximum" if too_long else "no"
        return {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    code = "context_length_exceeded" if prompt == "too long" else None
    return {"error": {"message": "no", "type": "invalid_request_error", "param": None, "code": code}}


def answer(path: str, body: dict[str, Any], prompt: str) -> dict[str, Any] | Events:
    """The answer to a question that is not refused."""
    if "Content" in path:
        return _gemini(path, prompt)
    if path.endswith("/messages"):
        return _messages(prompt, stream=bool(body.get("stream")))
    if path.endswith("/responses"):
        return _responses(prompt, stream=bool(body.get("stream")))
    if path.endswith("/embeddings"):
        vector = {"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}
        return {"object": "list", "model": "text-embedding-3-small", "data": [vector], "usage": {"prompt_tokens": 7, "total_tokens": 7}}
    if path.endswith("/chat/completions"):
        return _chat_stream(prompt, body) if body.get("stream") else _chat()
    return _completion(body)


def _events(documents: Iterable[object], *, named: bool = False, cut: bool = False, done: bool = True) -> Events:
    texts = []
    for document in documents:
        text = document if isinstance(document, str) else json.dumps(document)
        name = f"event: {document['type']}\n" if named and isinstance(document, dict) else ""
        texts.append(f"{name}data: {text}\n\n")
    return Events((*texts, *(("data: [DONE]\n\n",) if done and not cut else ())), cut)


def _chat() -> dict[str, Any]:
    message = {"role": "assistant", "content": SECRET}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [choice],
        "usage": OPENAI_USAGE,
    }


def _chat_stream(prompt: str, body: dict[str, Any]) -> Events:
    def chunk(*choices: object, **more: object) -> dict[str, Any]:
        base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-2024-08-06"}
        return {**base, "choices": list(choices), **more}

    def delta(finish: str | None = None, **said: object) -> dict[str, Any]:
        return {"index": 0, "delta": said, "finish_reason": finish}

    chunks: list[Any] = [chunk(delta(role="assistant", content="")), *(chunk(delta(content=piece)) for piece in PIECES)]
    if prompt == "cut":
        return _events(chunks[:3], cut=True)
    if prompt == "malformed":
        return _events([*chunks[:2], '{"id": "chatcmpl'])
    if prompt == "break off":
        return _events([*chunks[:2], {"error": {"message": "lost it", "type": "server_error", "code": "rate_limit_exceeded"}}])
    chunks.append(chunk(delta("stop")))
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append(chunk(usage=OPENAI_USAGE))
    return _events(chunks)


def _completion(body: dict[str, Any]) -> dict[str, Any] | Events:
    def part(text: str, finish: str | None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": None}
        return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "gpt-3.5-turbo-instruct", "choices": [choice]}

    if not body.get("stream"):
        return {**part(SECRET, "stop"), "usage": OPENAI_USAGE}
    usage = {**part("", None), "choices": [], "usage": OPENAI_USAGE}
    asked = (body.get("stream_options") or {}).get("include_usage")
    return _events([*(part(piece, None) for piece in PIECES), part("", "stop"), *([usage] if asked else [])])


def _responses(prompt: str, *, stream: bool) -> dict[str, Any] | Events:
    text = {"type": "output_text", "text": SECRET, "annotations": [], "logprobs": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}
    whole: dict[str, Any] = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-4o-2024-08-06",
        "status": "completed",
        "error": None,
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": RESPONSES_USAGE,
    }
    if prompt == "fail":
        whole |= {"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "no"}, "output": [], "usage": None}
    if not stream:
        return whole
    begun = {**whole, "status": "in_progress", "output": [], "usage": None, "error": None}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    empty = {**item, "status": "in_progress", "content": []}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": empty},
        {"type": "response.content_part.added", **place, "part": {**text, "text": ""}},
        *({"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []} for piece in PIECES),
        {"type": "response.output_text.done", **place, "text": SECRET, "logprobs": []},
        {"type": "response.failed" if prompt == "fail" else "response.completed", "response": whole},
    ]
    numbered = [{**event, "sequence_number": number} for number, event in enumerate(events)]
    return _events(numbered, named=True, done=False)


def _messages(prompt: str, *, stream: bool) -> dict[str, Any] | Events:
    whole = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": [{"type": "text", "text": SECRET}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": ANTHROPIC_USAGE,
    }
    if not stream:
        return whole
    start = {**whole, "content": [], "stop_reason": None, "usage": {**ANTHROPIC_USAGE, "output_tokens": 1}}
    events: list[Any] = [
        {"type": "message_start", "message": start},
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}} for piece in PIECES),
    ]
    if prompt == "cut":
        return _events(events, named=True, cut=True)
    if prompt == "malformed":
        return Events((*_events(events, named=True, done=False).texts, 'event: content_block_delta\ndata: {"type": "cont\n\n'))
    if prompt == "break off":
        return _events([*events, {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}], named=True, done=False)
    events += [
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 20}},
        {"type": "message_stop"},
    ]
    return _events(events, named=True, done=False)


GEMINI_USAGE: Final = {
    "promptTokenCount": 90,
    "toolUsePromptTokenCount": 10,
    "candidatesTokenCount": 12,
    "thoughtsTokenCount": 8,
    "cachedContentTokenCount": 40,
    "totalTokenCount": 120,
}


def _gemini(path: str, prompt: str) -> dict[str, Any] | Events:
    def said(text: str, finish: str | None = None, **more: object) -> dict[str, Any]:
        candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
        candidates = [{**candidate, "finishReason": finish} if finish else candidate]
        return {"candidates": candidates, "modelVersion": "gemini-2.5-flash-001", "responseId": "resp-1", **more}

    if "mbedContent" in path:
        return {"embeddings": [{"values": [0.5, 0.25]}], "embedding": {"values": [0.5, 0.25]}}
    if prompt == "tool":
        asked = {"functionCall": {"name": "weather", "args": {"city": "Bern"}}}
        return {"candidates": [{"content": {"role": "model", "parts": [asked]}, "finishReason": "STOP"}], "usageMetadata": GEMINI_USAGE}
    if prompt == "blocked":
        return {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 5}}
    if "streamGenerateContent" not in path:
        return said(SECRET, "STOP", usageMetadata=GEMINI_USAGE)
    begun = {**GEMINI_USAGE, "candidatesTokenCount": 1}
    pieces: list[Any] = [said(PIECES[0], usageMetadata=begun), said(PIECES[1])]
    if prompt == "cut":
        return _events(pieces, cut=True)
    return _events([*pieces, said(PIECES[2], "STOP", usageMetadata=GEMINI_USAGE)], done=False)
