"""Any server that speaks OpenAI's chat completions: OpenAI itself, vLLM, llama.cpp, Ollama, gateways."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final
from urllib.parse import urlsplit

from sage_agent.llm.providers.base import Completion, Delta, Prompt, Step, ToolCall, Usage
from sage_agent.llm.providers.failures import cut_off, filtered, malformed
from sage_agent.llm.providers.http import Question
from sage_agent.llm.providers.reading import Document, count, inner, objects, part, read_event, schema_of, word

_OWN_HOSTS: Final = ("api.openai.com", ".openai.azure.com")
"""Where models are that refuse `max_tokens`; other servers know no other word."""


class OpenAIWire:
    """Implements `Wire`. `bound` is what the server calls the longest answer."""

    name: Final = "openai"

    def __init__(self, bound: str = "max_tokens") -> None:
        self._bound = bound

    def headers(self, api_key: str) -> dict[str, str]:
        """A local server is not sent an empty key."""
        return {"authorization": f"Bearer {api_key}"} if api_key else {}

    def question(self, model: str, prompt: Prompt, *, stream: bool) -> Question:
        """A chat; a stream is asked to end with its usage."""
        messages: list[Document] = [{"role": turn.role, "content": turn.text} for turn in prompt.turns]
        if prompt.system:
            messages.insert(0, {"role": "system", "content": prompt.system})
        messages.append({"role": "user", "content": prompt.text})
        for step in prompt.steps:
            messages += _step(step)
        body: Document = {"model": model, "messages": messages, self._bound: prompt.max_tokens}
        if prompt.tools:
            functions = [{"name": tool.name, "description": tool.description, "parameters": schema_of(tool)} for tool in prompt.tools]
            body["tools"] = [{"type": "function", "function": function} for function in functions]
            body["tool_choice"] = "none" if prompt.answer_now else "auto"
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return Question("/chat/completions", body)

    def completion(self, document: Document) -> Completion:
        """The first choice."""
        choice = _choice(document)
        message = inner(choice, "message")
        text, calls = message.get("content"), tuple(filter(None, map(_call, objects(message, "tool_calls"))))
        if not isinstance(text, str) and not calls:
            raise malformed("it holds no text")
        return Completion(text if isinstance(text, str) else "", _usage(document), _finish(choice), calls)

    async def deltas(self, events: AsyncIterator[bytes]) -> AsyncGenerator[Delta, None]:
        """It must end with `[DONE]`."""
        pieces: dict[object, Document] = {}
        async for data in events:
            if data == b"[DONE]":
                if calls := tuple(filter(None, map(_call, pieces.values()))):
                    yield Delta("", calls=calls)
                return
            yield _delta(read_event(data), pieces)
        raise cut_off()


def openai_wire(base_url: str) -> OpenAIWire:
    """The format as the server at this address speaks it."""
    host = urlsplit(base_url).hostname or ""
    return OpenAIWire("max_completion_tokens" if host.endswith(_OWN_HOSTS) else "max_tokens")


def _step(step: Step) -> list[Document]:
    """What the model said, and what came of it."""
    functions = [{"name": call.name, "arguments": call.arguments or "{}"} for call in step.calls]
    calls = [{"id": call.id, "type": "function", "function": one} for call, one in zip(step.calls, functions, strict=True)]
    results = [{"role": "tool", "tool_call_id": call.id, "content": said} for call, said in step.outcomes()]
    return [{"role": "assistant", "content": step.text or None, "tool_calls": calls}, *results]


def _call(said: Document) -> ToolCall | None:
    function = inner(said, "function")
    return ToolCall(word(said, "id"), name, word(function, "arguments")) if (name := word(function, "name")) else None


def _delta(document: Document, pieces: dict[object, Document]) -> Delta:
    """A piece of the answer; those of calls are put together in `pieces`, by their place."""
    if not document.get("choices"):
        return Delta("", _usage(document))
    choice = _choice(document)
    said = inner(choice, "delta")
    for one in objects(said, "tool_calls"):
        _put_together(pieces.setdefault(part(one, "index"), {"function": {"arguments": ""}}), one)
    text = said.get("content")
    return Delta(text if isinstance(text, str) else "", _usage(document), _finish(choice))


def _put_together(call: Document, piece: Document) -> None:
    """Its id and name come once, its arguments bit by bit."""
    function = inner(piece, "function")
    call["id"] = call.get("id") or word(piece, "id")
    call["function"]["name"] = call["function"].get("name") or word(function, "name")
    call["function"]["arguments"] += word(function, "arguments")


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
