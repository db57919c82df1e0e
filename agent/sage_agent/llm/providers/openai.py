"""Any server that speaks OpenAI's chat completions: OpenAI itself, vLLM, llama.cpp, Ollama, gateways."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from sage_agent.llm.providers.base import Completion, Delta, Prompt, Usage
from sage_agent.llm.providers.failures import cut_off, filtered, malformed
from sage_agent.llm.providers.http import Question
from sage_agent.llm.providers.reading import Document, count, inner, objects, part, read_event


class OpenAIWire:
    """Implements `Wire`."""

    name: Final = "openai"

    def headers(self, api_key: str) -> dict[str, str]:
        """A local server is not sent an empty key."""
        return {"authorization": f"Bearer {api_key}"} if api_key else {}

    def question(self, model: str, prompt: Prompt, *, stream: bool) -> Question:
        """A chat; a stream is asked to end with its usage."""
        messages = [{"role": turn.role, "content": turn.text} for turn in prompt.turns]
        if prompt.system:
            messages.insert(0, {"role": "system", "content": prompt.system})
        messages.append({"role": "user", "content": prompt.text})
        body: Document = {"model": model, "messages": messages, "max_tokens": prompt.max_tokens}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return Question("/chat/completions", body)

    def completion(self, document: Document) -> Completion:
        """The first choice."""
        choice = _choice(document)
        text = inner(choice, "message").get("content")
        if not isinstance(text, str):
            raise malformed("it holds no text")
        return Completion(text, _usage(document), _finish(choice))

    async def deltas(self, events: AsyncIterator[bytes]) -> AsyncGenerator[Delta, None]:
        """It must end with `[DONE]`."""
        async for data in events:
            if data == b"[DONE]":
                return
            yield _delta(read_event(data))
        raise cut_off()


def _delta(document: Document) -> Delta:
    if not document.get("choices"):
        return Delta("", _usage(document))
    choice = _choice(document)
    text = inner(choice, "delta").get("content")
    return Delta(text if isinstance(text, str) else "", _usage(document), _finish(choice))


def _choice(document: Document) -> Document:
    choices = objects(document, "choices")
    if not choices:
        raise malformed("it holds no choices")
    if choices[0].get("finish_reason") == "content_filter":
        raise filtered()
    return choices[0]


def _finish(choice: Document) -> str:
    reason = choice.get("finish_reason")
    return reason if isinstance(reason, str) else ""


def _usage(document: Document) -> Usage | None:
    """Its prompt tokens include the cache, and its completion tokens the reasoning."""
    usage = inner(document, "usage")
    asked, answered = count(usage, "prompt_tokens"), count(usage, "completion_tokens", otherwise=0)
    if asked is None or answered is None:
        return None
    details = inner(usage, "prompt_tokens_details")
    return Usage(
        asked,
        answered,
        cached_read=part(details, "cached_tokens"),
        cached_write=part(details, "cache_write_tokens"),
        reasoning=part(inner(usage, "completion_tokens_details"), "reasoning_tokens"),
    )
