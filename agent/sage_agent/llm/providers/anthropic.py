"""Anthropic's Messages API, and whoever speaks it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from typing import Final

import orjson

from sage_agent.llm.providers.base import Completion, Delta, Prompt, Step, ToolCall, Usage
from sage_agent.llm.providers.failures import cut_off, filtered, malformed
from sage_agent.llm.providers.http import Question
from sage_agent.llm.providers.reading import Document, arguments_of, count, inner, objects, part, read_event, schema_of, word

_VERSION: Final = "2023-06-01"
_FINISHES: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}


class AnthropicWire:
    """Implements `Wire`."""

    name: Final = "anthropic"

    def headers(self, api_key: str) -> dict[str, str]:
        """The version is the format's, and has to be said."""
        return {"anthropic-version": _VERSION, **({"x-api-key": api_key} if api_key else {})}

    def question(self, model: str, prompt: Prompt, *, stream: bool) -> Question:
        """A message."""
        messages: list[Document] = [{"role": turn.role, "content": turn.text} for turn in prompt.turns]
        messages.append({"role": "user", "content": prompt.text})
        for step in prompt.steps:
            messages += _step(step)
        body: Document = {"model": model, "max_tokens": prompt.max_tokens, "messages": messages}
        if prompt.system:
            body["system"] = prompt.system
        if prompt.tools:
            body["tools"] = [{"name": tool.name, "description": tool.description, "input_schema": schema_of(tool)} for tool in prompt.tools]
            body["tool_choice"] = {"type": "none" if prompt.answer_now else "auto"}
        return Question("/v1/messages", {**body, "stream": True} if stream else body)

    def completion(self, document: Document) -> Completion:
        """The text blocks, and the calls of tools."""
        finish, blocks = _finish(document), objects(document, "content")
        texts = [block["text"] for block in blocks if isinstance(block.get("text"), str)]
        calls = tuple(_call(block, orjson.dumps(inner(block, "input")).decode()) for block in blocks if _calls(block))
        if not texts and not calls and finish != "length":
            raise malformed("it holds no text")
        return Completion("".join(texts), _usage(inner(document, "usage")), finish, calls)

    async def deltas(self, events: AsyncIterator[bytes]) -> AsyncGenerator[Delta, None]:
        """It must end with `message_stop`. What was asked is counted at the start, what was answered at the end; both are totals."""
        usage: Document = {}
        calls: dict[int, ToolCall] = {}
        async for data in events:
            event = read_event(data)
            match event.get("type"):
                case "message_start":
                    usage |= inner(inner(event, "message"), "usage")
                    yield Delta("", _usage(usage))
                case "content_block_start" if _calls(block := inner(event, "content_block")):
                    calls[part(event, "index")] = _call(block, "")
                case "content_block_delta" if (call := calls.get(part(event, "index"))) is not None:
                    calls[part(event, "index")] = replace(call, arguments=call.arguments + word(inner(event, "delta"), "partial_json"))
                case "content_block_delta":
                    yield Delta(word(inner(event, "delta"), "text"))
                case "message_delta":
                    usage |= {name: number for name, number in inner(event, "usage").items() if number is not None}
                    yield Delta("", _usage(usage), _finish(inner(event, "delta")))
                case "message_stop":
                    if calls:
                        yield Delta("", calls=tuple(calls.values()))
                    return
        raise cut_off()


def _step(step: Step) -> list[Document]:
    """What the model said, and what came of it."""
    said: list[Document] = [{"type": "text", "text": step.text}] if step.text else []
    said += [{"type": "tool_use", "id": call.id, "name": call.name, "input": arguments_of(call)} for call in step.calls]
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": result} for call, result in step.outcomes()]
    return [{"role": "assistant", "content": said}, {"role": "user", "content": results}]


def _calls(block: Document) -> bool:
    return block.get("type") == "tool_use" and bool(word(block, "name"))


def _call(block: Document, arguments: str) -> ToolCall:
    return ToolCall(word(block, "id"), word(block, "name"), arguments)


def _finish(holder: Document) -> str:
    reason = holder.get("stop_reason")
    if reason == "refusal":
        raise filtered()
    return _FINISHES.get(reason, reason) if isinstance(reason, str) else ""


def _usage(usage: Document) -> Usage | None:
    """Its input tokens leave out what was read from and written to the cache."""
    asked, answered = count(usage, "input_tokens"), count(usage, "output_tokens", otherwise=0)
    if asked is None or answered is None:
        return None
    read, written = part(usage, "cache_read_input_tokens"), part(usage, "cache_creation_input_tokens")
    reasoning = part(inner(usage, "output_tokens_details"), "thinking_tokens")
    return Usage(asked + read + written, answered, cached_read=read, cached_write=written, reasoning=reasoning)
