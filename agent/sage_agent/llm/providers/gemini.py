"""Google's Gemini API."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final
from urllib.parse import quote

import orjson

from sage_agent.llm.providers.base import Completion, Delta, Prompt, Step, ToolCall, ToolSpec, Usage
from sage_agent.llm.providers.failures import cut_off, filtered, malformed
from sage_agent.llm.providers.http import Question
from sage_agent.llm.providers.reading import Document, arguments_of, count, inner, objects, part, read_event, schema_of, word

_FINISHES: Final = {"STOP": "stop", "MAX_TOKENS": "length"}
_NUMBERED: Final = "call_number_"
_ROLES: Final = {"user": "user", "assistant": "model"}
_FILTERED: Final = frozenset({"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE"})


class GeminiWire:
    """Implements `Wire`."""

    name: Final = "gcp.gemini"

    def headers(self, api_key: str) -> dict[str, str]:
        """The key, which as a parameter of the address would be in logs."""
        return {"x-goog-api-key": api_key} if api_key else {}

    def question(self, model: str, prompt: Prompt, *, stream: bool) -> Question:
        """The turns of a conversation, the last of which is the user's."""
        place = quote(model if "/" in model else f"models/{model}")
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        turns = [*((_ROLES[turn.role], turn.text) for turn in prompt.turns), ("user", prompt.text)]
        contents: list[Document] = [{"role": role, "parts": [{"text": text}]} for role, text in turns]
        for step in prompt.steps:
            contents += _step(step)
        body: Document = {
            "contents": contents,
            "generationConfig": {"maxOutputTokens": prompt.max_tokens},
        }
        if prompt.system:
            body["systemInstruction"] = {"parts": [{"text": prompt.system}]}
        if prompt.tools:
            body["tools"] = [{"functionDeclarations": [_declaration(tool) for tool in prompt.tools]}]
            body["toolConfig"] = {"functionCallingConfig": {"mode": "NONE" if prompt.answer_now else "AUTO"}}
        return Question(f"/v1beta/{place}:{method}", body)

    def completion(self, document: Document) -> Completion:
        """The first candidate."""
        candidate = _candidate(document)
        finish, text, calls = _finish(candidate), _text(candidate), _calls(candidate, 0)
        if not text and not calls and finish != "length":
            raise malformed("it holds no text")
        return Completion(text, _usage(document), "tool_calls" if calls else finish, calls)

    async def deltas(self, events: AsyncIterator[bytes]) -> AsyncGenerator[Delta, None]:
        """It says why it ends, and then ends; the usage is of all so far."""
        ended, called = False, 0
        async for data in events:
            document = read_event(data)
            candidate = _candidate(document)
            finish, calls = _finish(candidate), _calls(candidate, called)
            ended, called = ended or bool(finish), called + len(calls)
            yield Delta(_text(candidate), _usage(document), "tool_calls" if finish and called else finish, calls)
        if not ended:
            raise cut_off()


def _candidate(document: Document) -> Document:
    """Nothing, where the piece of a stream has only usage."""
    if inner(document, "promptFeedback").get("blockReason"):
        raise filtered()
    return next(iter(objects(document, "candidates")), {})


def _declaration(tool: ToolSpec) -> Document:
    return {"name": tool.name, "description": tool.description, "parametersJsonSchema": schema_of(tool)}


def _step(step: Step) -> list[Document]:
    """What the model said, and what came of it."""
    said: list[Document] = [{"text": step.text}] if step.text else []
    for call in step.calls:
        named = {"name": call.name, "args": arguments_of(call), **_own_id(call)}
        said.append({"functionCall": named, **({"thoughtSignature": call.signature} if call.signature else {})})
    results = [
        {"functionResponse": {"name": call.name, "response": {"result": result}, **_own_id(call)}} for call, result in step.outcomes()
    ]
    return [{"role": "model", "parts": said}, {"role": "user", "parts": results}]


def _own_id(call: ToolCall) -> Document:
    """The id of a call where Gemini gave it one."""
    return {} if call.id.startswith(_NUMBERED) else {"id": call.id}


def _calls(candidate: Document, before: int) -> tuple[ToolCall, ...]:
    """The calls of tools, where so many came before; not every model gives them ids."""
    parts = [one for one in objects(inner(candidate, "content"), "parts") if word(inner(one, "functionCall"), "name")]
    return tuple(_call(one, f"{_NUMBERED}{number}") for number, one in enumerate(parts, before))


def _call(said: Document, numbered: str) -> ToolCall:
    call = inner(said, "functionCall")
    arguments = orjson.dumps(inner(call, "args")).decode()
    return ToolCall(word(call, "id") or numbered, word(call, "name"), arguments, word(said, "thoughtSignature"))


def _finish(candidate: Document) -> str:
    reason = candidate.get("finishReason")
    if not isinstance(reason, str):
        return ""
    if reason in _FILTERED:
        raise filtered()
    return _FINISHES.get(reason, reason.lower())


def _text(candidate: Document) -> str:
    """What it says, without the thoughts before."""
    parts = objects(inner(candidate, "content"), "parts")
    return "".join(one["text"] for one in parts if isinstance(one.get("text"), str) and not one.get("thought"))


def _usage(document: Document) -> Usage | None:
    """Its prompt leaves out the results of tools, its candidates leave out the thoughts; the cache is part of the prompt."""
    usage = inner(document, "usageMetadata")
    asked, answered = count(usage, "promptTokenCount"), count(usage, "candidatesTokenCount", otherwise=0)
    if asked is None or answered is None:
        return None
    thoughts = part(usage, "thoughtsTokenCount")
    return Usage(
        asked + part(usage, "toolUsePromptTokenCount"),
        answered + thoughts,
        cached_read=part(usage, "cachedContentTokenCount"),
        reasoning=thoughts,
    )
