"""google-genai: content generated and embedded by every client, each inference counted once.

The patched methods are those that make one inference each: what the library calls a call may be several, where it runs the caller's
functions in between. They are private, as the public ones only lead to them; what the caller holds stays the library's own generator,
so a stream that is closed early looks like one that is dropped and is counted as abandoned.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final

from sage_obs.conventions import ErrorType
from sage_obs.genai.calls import LlmCall
from sage_obs.genai.nesting import counted
from sage_obs.genai.requests import recorder
from sage_obs.genai.streams import AsyncSteps, Steps, Watch
from sage_obs.genai.transcript import Transcript
from sage_obs.genai.usage import NOTHING, of_google, part
from sage_obs.integrations import google_content
from sage_obs.integrations.patch import Patch, Patches
from sage_obs.metrics.active import internal_error

_GENERATE: Final = "generate_content"
_EMBED: Final = "embeddings"


def model_of(given: object) -> str:
    """The model's own name, without the collection or project it is named in; `unknown` where there is none."""
    return (given.rstrip("/").rpartition("/")[2] if isinstance(given, str) else "") or "unknown"


class _Contents:
    """Reads one inference, whole or in pieces; each piece says what was used so far."""

    __slots__ = ("_chunks", "_usage")

    def __init__(self) -> None:
        self._usage = NOTHING
        self._chunks: google_content.Chunks | None = None

    def whole(self, call: LlmCall, answer: Any) -> None:
        self._read(call, answer)
        call.capture.say(lambda transcript: transcript.answered(google_content.answers_of(answer)))

    def piece(self, call: LlmCall, item: Any) -> bool:
        if any(part(candidate, "content", "parts") for candidate in _candidates(item)):
            call.first_token()
        self._read(call, item)
        if call.capture.on:
            call.capture.say(lambda transcript: self._follow(transcript, item))
        return True

    def _follow(self, transcript: Transcript, item: Any) -> None:
        if self._chunks is None:
            self._chunks = google_content.Chunks()
            transcript.following(self._chunks.messages)
        self._chunks.add(item)

    def _read(self, call: LlmCall, answer: Any) -> None:
        reasons = [part(candidate, "finish_reason", "value") for candidate in _candidates(answer)]
        call.response(model=part(answer, "model_version"), id=part(answer, "response_id"), finish_reasons=reasons)
        if (sent := part(answer, "usage_metadata")) is not None:
            self._usage = self._usage.grown(of_google(sent))
            call.used(self._usage)
        if part(answer, "prompt_feedback", "block_reason") is not None and not reasons:
            call.fail(ErrorType.CONTENT_FILTER)


def _candidates(answer: object) -> list[object]:
    found = part(answer, "candidates")
    return found if isinstance(found, list) else []


def _watch(models: Any, asked: dict[str, Any], operation: str) -> Watch | None:
    """None while the layer is off, and where something around this counts the call."""
    if recorder() is None or counted():
        return None
    try:
        provider = "gcp.vertex_ai" if part(models, "_api_client", "vertexai") is True else "gcp.gemini"
        call = LlmCall(provider, model_of(asked.get("model")), operation=operation)
        watch = Watch(call, _Contents(), GoogleGenaiIntegration.name)
        if operation == _GENERATE:
            call.capture.say(lambda transcript: google_content.asked(transcript, asked))
    except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
        internal_error(GoogleGenaiIntegration.name, exc)
        return None
    else:
        return watch


def _sync(operation: str, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def asked(models: Any, *args: Any, **kwargs: Any) -> Any:
        watch = _watch(models, kwargs, operation)
        if watch is None:
            return original(models, *args, **kwargs)
        try:
            answer = original(models, *args, **kwargs)
        except BaseException as exc:
            watch.raised(exc)
            raise
        watch.whole(answer)
        watch.end()
        return answer

    return asked


def _async(operation: str, original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def asked(models: Any, *args: Any, **kwargs: Any) -> Any:
        watch = _watch(models, kwargs, operation)
        if watch is None:
            return await original(models, *args, **kwargs)
        try:
            answer = await original(models, *args, **kwargs)
        except BaseException as exc:
            watch.raised(exc)
            raise
        watch.whole(answer)
        watch.end()
        return answer

    return asked


def _stream(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def asked(models: Any, *args: Any, **kwargs: Any) -> Any:
        watch = _watch(models, kwargs, _GENERATE)
        if watch is None:
            return original(models, *args, **kwargs)
        steps = Steps(original(models, *args, **kwargs), watch)
        watch.owned_by(steps)
        return steps

    return asked


def _async_stream(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def asked(models: Any, *args: Any, **kwargs: Any) -> Any:
        watch = _watch(models, kwargs, _GENERATE)
        if watch is None:
            return await original(models, *args, **kwargs)
        try:
            answer = await original(models, *args, **kwargs)
        except BaseException as exc:
            watch.raised(exc)
            raise
        watch.rest()
        steps = AsyncSteps(answer, watch)
        watch.owned_by(steps)
        return steps

    return asked


class GoogleGenaiIntegration:
    """Counts the inferences of every Gemini client, synchronous and asynchronous, of either service."""

    name = "google-genai"
    module = "google.genai"
    versions = ("1.10", "4")

    def __init__(self) -> None:
        self._patches = Patches()

    def install(self) -> None:
        """Patch both clients."""
        from google.genai.models import AsyncModels, Models

        self._patches.install(
            Patch(Models, "_generate_content", functools.partial(_sync, _GENERATE)),
            Patch(Models, "_generate_content_stream", _stream),
            Patch(Models, _embedding(Models), functools.partial(_sync, _EMBED)),
            Patch(AsyncModels, "_generate_content", functools.partial(_async, _GENERATE)),
            Patch(AsyncModels, "_generate_content_stream", _async_stream),
            Patch(AsyncModels, _embedding(AsyncModels), functools.partial(_async, _EMBED)),
        )

    def uninstall(self) -> None:
        """Put them back."""
        self._patches.uninstall()


def _embedding(models: type) -> str:
    """The method that makes one request for embeddings; older versions have only the public one."""
    return "_embed_content" if "_embed_content" in vars(models) else "embed_content"


INTEGRATION: Final = GoogleGenaiIntegration()
