"""Anthropic's Messages API, and whoever speaks it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from sage_agent.llm.providers.base import Completion, Delta, Prompt, Usage
from sage_agent.llm.providers.failures import cut_off, filtered, malformed
from sage_agent.llm.providers.http import Question
from sage_agent.llm.providers.reading import Document, count, inner, objects, part, read_event

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
        messages = [{"role": turn.role, "content": turn.text} for turn in prompt.turns]
        messages.append({"role": "user", "content": prompt.text})
        body: Document = {"model": model, "max_tokens": prompt.max_tokens, "messages": messages}
        if prompt.system:
            body["system"] = prompt.system
        return Question("/v1/messages", {**body, "stream": True} if stream else body)

    def completion(self, document: Document) -> Completion:
        """The text blocks."""
        finish = _finish(document)
        texts = [block["text"] for block in objects(document, "content") if isinstance(block.get("text"), str)]
        if not texts and finish != "length":
            raise malformed("it holds no text")
        return Completion("".join(texts), _usage(inner(document, "usage")), finish)

    async def deltas(self, events: AsyncIterator[bytes]) -> AsyncGenerator[Delta, None]:
        """It must end with `message_stop`. What was asked is counted at the start, what was answered at the end; both are totals."""
        usage: Document = {}
        async for data in events:
            event = read_event(data)
            match event.get("type"):
                case "message_start":
                    usage |= inner(inner(event, "message"), "usage")
                    yield Delta("", _usage(usage))
                case "content_block_delta":
                    text = inner(event, "delta").get("text")
                    yield Delta(text if isinstance(text, str) else "")
                case "message_delta":
                    usage |= {name: number for name, number in inner(event, "usage").items() if number is not None}
                    yield Delta("", _usage(usage), _finish(inner(event, "delta")))
                case "message_stop":
                    return
        raise cut_off()


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
