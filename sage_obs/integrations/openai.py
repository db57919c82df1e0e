"""openai: chat completions, completions, responses and embeddings of every client, each call counted once.

Of a chat stream the usage is asked for where the caller has not said whether to; the extra chunk it comes in is kept from the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from sage_obs.conventions import ErrorType
from sage_obs.genai.calls import LlmCall
from sage_obs.genai.chat import Chunks, answers_of
from sage_obs.genai.taxonomy import of_code
from sage_obs.genai.transcript import Transcript
from sage_obs.genai.usage import of_openai, part
from sage_obs.integrations.openai_content import SoFar, chat_asked, responses_answers, responses_asked
from sage_obs.integrations.stainless import Clients, Question
from sage_obs.integrations.stream_usage import StreamUsage

_OPERATIONS: Final = {
    "/chat/completions": "chat",
    "/completions": "text_completion",
    "/embeddings": "embeddings",
    "/responses": "chat",
}
_WITH_USAGE: Final = frozenset({"/chat/completions", "/completions"})
"""Streams that send usage only if asked."""
_ASKED: Final[Mapping[str, Callable[[Transcript, Mapping[str, Any]], None]]] = {
    "/chat/completions": chat_asked,
    "/completions": chat_asked,
    "/responses": responses_asked,
}
_HOSTS: Final = (
    ("azure.com", "azure.ai.openai"),
    ("amazonaws.com", "aws.bedrock"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("api.deepseek.com", "deepseek"),
    ("api.groq.com", "groq"),
    ("api.mistral.ai", "mistral_ai"),
    ("api.perplexity.ai", "perplexity"),
    ("api.x.ai", "x_ai"),
)
"""Others that this client is pointed at, by the end of their host's name, in the conventions' words."""
_SPOKEN: Final = ("content", "tool_calls", "function_call", "refusal", "reasoning_content", "reasoning", "audio")
"""What of a delta holds tokens."""


def provider_of(client: Any) -> str:
    """Whose models a client asks, by its class and the host it is pointed at."""
    host = str(getattr(getattr(client, "base_url", None), "host", "")).lower()
    found = next((name for end, name in _HOSTS if host == end or host.endswith((f".{end}", f"-{end}"))), "openai")
    return "azure.ai.openai" if any("Azure" in kind.__name__ for kind in type(client).__mro__) else found


class _Dialect:
    name = "openai"

    def __init__(self) -> None:
        self._usage = StreamUsage()

    def question(self, client: Any, path: str, body: Mapping[str, Any], *, raw: bool) -> Question | None:
        operation = _OPERATIONS.get(path)
        if operation is None:
            return None
        more = self._usage.wanted(str(client.base_url), body) if path in _WITH_USAGE and not raw else {}
        reader = _Responses() if path == "/responses" else Completions(stripping=bool(more))
        asked = (lambda transcript: _ASKED[path](transcript, body)) if path in _ASKED else None
        return Question(provider_of(client), body.get("model") or "unknown", operation, reader, more, asked)

    def traces_itself(self, client: Any) -> bool:
        del client
        return False

    def refused(self, client: Any, error: Exception) -> bool:
        return self._usage.refused(str(client.base_url), error)


class Completions:
    """Reads chat completions, completions and embeddings; `stripping` the chunk that is only there for its usage.

    Chunks come by the thousand: what each of them repeats is read from the first that has it.
    """

    __slots__ = ("_chunks", "_named", "_spoken", "_stripping")

    def __init__(self, *, stripping: bool) -> None:
        self._stripping = stripping
        self._chunks: Chunks | None = None
        self._named = False
        self._spoken = False

    def whole(self, call: LlmCall, answer: Any) -> None:
        """Read an answer in one piece."""
        self._said(call, answer, _choices(answer))
        call.capture.say(lambda transcript: transcript.answered(answers_of(answer)))
        if (usage := part(answer, "usage")) is not None:
            call.used(of_openai(usage))

    def piece(self, call: LlmCall, item: Any) -> bool:
        """Read a chunk."""
        choices = _choices(item)
        self._said(call, item, choices)
        if call.capture.on:
            call.capture.say(lambda transcript: self._follow(transcript, choices))
        if not self._spoken and any(map(_has_tokens, choices)):
            self._spoken = True
            call.first_token()
        if (usage := part(item, "usage")) is None:
            return True
        call.used(of_openai(usage))
        return not self._stripping or any(_has_tokens(choice) or part(choice, "finish_reason") for choice in choices)

    def _follow(self, transcript: Transcript, choices: list[object]) -> None:
        if self._chunks is None:
            self._chunks = Chunks()
            transcript.following(self._chunks.messages)
        self._chunks.add(choices)

    def _said(self, call: LlmCall, answer: Any, choices: list[object]) -> None:
        if not self._named:
            model = part(answer, "model")
            self._named = bool(model)
            call.response(model=model, id=part(answer, "id"))
        if reasons := [reason for choice in choices if (reason := part(choice, "finish_reason")) is not None]:
            call.response(finish_reasons=reasons)


def _choices(answer: object) -> list[object]:
    found = part(answer, "choices")
    return list(found) if isinstance(found, Iterable) and not isinstance(found, str) else []


def _has_tokens(choice: object) -> bool:
    delta = part(choice, "delta")
    return bool(part(choice, "text")) if delta is None else any(part(delta, name) for name in _SPOKEN)


_ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})


class _Responses:
    """Reads answers of the Responses API, whose streams end with the whole answer."""

    __slots__ = ("_so_far",)

    def __init__(self) -> None:
        self._so_far: SoFar | None = None

    def whole(self, call: LlmCall, answer: Any) -> None:
        status = part(answer, "status")
        reason = part(answer, "incomplete_details", "reason") if status == "incomplete" else status
        ended = status in {"completed", "incomplete", "failed", "cancelled"}
        call.response(model=part(answer, "model"), id=part(answer, "id"), finish_reasons=(reason,) if ended else ())
        call.capture.say(lambda transcript: transcript.answered(responses_answers(answer)))
        if (usage := part(answer, "usage")) is not None:
            call.used(of_openai(usage))
        if status == "failed":
            call.fail(of_code(part(answer, "error", "code")) or ErrorType.SERVER_ERROR)

    def piece(self, call: LlmCall, item: Any) -> bool:
        kind = part(item, "type")
        if kind in _ENDS:
            self.whole(call, part(item, "response"))
        elif kind == "error":
            call.fail(of_code(part(item, "code")) or ErrorType.SERVER_ERROR)
        elif isinstance(kind, str) and kind.endswith(".delta"):
            call.first_token()
            if call.capture.on:
                call.capture.say(lambda transcript: self._follow(transcript, item))
        return True

    def _follow(self, transcript: Transcript, item: Any) -> None:
        if self._so_far is None:
            self._so_far = SoFar()
            transcript.following(self._so_far.messages)
        self._so_far.add(item)


class OpenAIIntegration:
    """Counts the calls of every OpenAI client, synchronous and asynchronous, Azure's included."""

    name = "openai"
    module = "openai"
    versions = ("1.66", "4")

    def __init__(self) -> None:
        self._clients = Clients("openai", _Dialect())

    def install(self) -> None:
        """Patch both clients."""
        self._clients.install()

    def uninstall(self) -> None:
        """Put them back."""
        self._clients.uninstall()


INTEGRATION: Final = OpenAIIntegration()
