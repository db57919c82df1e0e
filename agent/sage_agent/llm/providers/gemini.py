"""Google's Gemini API."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final
from urllib.parse import quote

from sage_agent.llm.providers.base import Completion, Delta, Prompt, Usage
from sage_agent.llm.providers.failures import cut_off, filtered, malformed
from sage_agent.llm.providers.http import Question
from sage_agent.llm.providers.reading import Document, count, inner, objects, part, read_event

_FINISHES: Final = {"STOP": "stop", "MAX_TOKENS": "length"}
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
        body: Document = {
            "contents": [{"role": role, "parts": [{"text": text}]} for role, text in turns],
            "generationConfig": {"maxOutputTokens": prompt.max_tokens},
        }
        if prompt.system:
            body["systemInstruction"] = {"parts": [{"text": prompt.system}]}
        return Question(f"/v1beta/{place}:{method}", body)

    def completion(self, document: Document) -> Completion:
        """The first candidate."""
        candidate = _candidate(document)
        finish, text = _finish(candidate), _text(candidate)
        if not text and finish != "length":
            raise malformed("it holds no text")
        return Completion(text, _usage(document), finish)

    async def deltas(self, events: AsyncIterator[bytes]) -> AsyncGenerator[Delta, None]:
        """It says why it ends, and then ends; the usage is of all so far."""
        ended = False
        async for data in events:
            document = read_event(data)
            candidate = _candidate(document)
            finish = _finish(candidate)
            ended = ended or bool(finish)
            yield Delta(_text(candidate), _usage(document), finish)
        if not ended:
            raise cut_off()


def _candidate(document: Document) -> Document:
    """Nothing, where the piece of a stream has only usage."""
    if inner(document, "promptFeedback").get("blockReason"):
        raise filtered()
    return next(iter(objects(document, "candidates")), {})


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
