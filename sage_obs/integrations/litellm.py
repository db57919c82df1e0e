"""litellm: completions and embeddings, each call of it counted once, whatever client library it calls underneath.

What the caller holds of a stream stays litellm's own object; its class asks the watch of the call it belongs to, if any.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from sage_obs.genai.calls import LlmCall
from sage_obs.genai.nesting import Counting, counted
from sage_obs.genai.requests import recorder
from sage_obs.genai.streams import Watch, step, step_async
from sage_obs.genai.usage import NOTHING, of_openai, part
from sage_obs.integrations.openai import Completions
from sage_obs.integrations.openai_content import chat_asked
from sage_obs.integrations.patch import Patch, Patches
from sage_obs.integrations.stream_usage import StreamUsage
from sage_obs.metrics.active import internal_error

_NAME: Final = "litellm"
_MARK: Final = "_sage_obs_watch"
_PROVIDERS: Final = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""Its names for providers in the conventions' words, where they differ."""
_ASKED_FOR_USAGE: Final = frozenset({"openai", "azure.ai.openai"})
_UNKNOWN: Final = "unknown"


def provider_and_model(model: object, given: object = None) -> tuple[str, str]:
    """Whose model litellm will ask and what it is called there, without asking litellm, which prints where it does not know."""
    library = sys.modules[_NAME]
    name = model if isinstance(model, str) and model else _UNKNOWN
    provider, _, rest = name.partition("/")
    if isinstance(given, str):
        provider, rest = given if given in library.provider_list else _UNKNOWN, rest if provider == given else name
    elif not rest or provider not in library.provider_list:
        provider, rest = str(part(library.model_cost, name, "litellm_provider") or _UNKNOWN), name
    known = next((ours for theirs, ours in _PROVIDERS.items() if provider in {theirs, f"{theirs}_converse"}), provider)
    return ("gcp.vertex_ai" if known.startswith("vertex_ai") else known), rest


class _Answers(Completions):
    """Reads litellm's answers, which are OpenAI's. Of a stream's usage it shows the caller less than it keeps for itself."""

    __slots__ = ("_read", "_stream", "_usage")

    def __init__(self, *, stripping: bool) -> None:
        super().__init__(stripping=stripping)
        self._stream: weakref.ref[Any] | None = None
        self._read = 0
        self._usage = NOTHING

    def follow(self, stream: Any) -> None:
        """The stream whose chunks these will be."""
        self._stream = weakref.ref(stream)

    def piece(self, call: LlmCall, item: Any) -> bool:
        """Read a chunk, and what the stream has kept since the last one."""
        shown = super().piece(call, item)
        for sent in (*self._kept(), part(item, "usage"), part(item, "_hidden_params", "usage")):
            if sent is not None:
                self._usage = self._usage.grown(of_openai(sent))
        call.used(self._usage)
        return shown

    def _kept(self) -> list[object]:
        stream = None if self._stream is None else self._stream()
        chunks = part(stream, "chunks")
        if not isinstance(chunks, list):
            return []
        new, self._read = chunks[self._read :], len(chunks)
        return [part(chunk, "usage") for chunk in new]


class _Asked:
    """One call of litellm that is measured, with the arguments it is made with."""

    __slots__ = ("_reader", "_server", "_usage", "arguments", "watch")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any], operation: str, usage: StreamUsage) -> None:
        provider, model = provider_and_model(args[0] if args else kwargs.get("model"), kwargs.get("custom_llm_provider"))
        self._usage = usage
        self._server = f"{kwargs.get('api_base') or kwargs.get('base_url')} {model}"
        more = usage.wanted(self._server, kwargs) if provider in _ASKED_FOR_USAGE else {}
        self.arguments = {**kwargs, **more}
        self._reader = _Answers(stripping=bool(more))
        call = LlmCall(provider, model, operation=operation)
        self.watch = Watch(call, self._reader, _NAME)
        if operation == "chat":
            body = dict(zip(("model", "messages"), args, strict=False)) | kwargs
            call.capture.say(lambda transcript: chat_asked(transcript, body))

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: dict[str, Any], operation: str, usage: StreamUsage) -> _Asked | None:
        """None while the layer is off, and where something around this counts the call."""
        if recorder() is None or counted():
            return None
        try:
            return cls(args, kwargs, operation, usage)
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
            internal_error(_NAME, exc)
            return None

    def again(self, error: BaseException, kwargs: Mapping[str, Any]) -> bool:
        """The library has raised: whether to ask what the caller asked, without what was added."""
        if self.arguments != kwargs and self._usage.refused(self._server, error):
            self.arguments = dict(kwargs)
            return True
        self.watch.raised(error)
        return False

    def answered(self, answer: Any) -> Any:
        """A stream is still to be read, everything else is over. Returns the answer."""
        try:
            if hasattr(type(answer), "__anext__"):
                self._follow(answer)
            elif part(answer, "_hidden_params", "cache_hit") is True:
                self.watch.forget()
            else:
                self.watch.whole(answer)
                self.watch.end()
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
            internal_error(_NAME, exc)
            self.watch.end()
        return answer

    def _follow(self, stream: Any) -> None:
        if part(stream, "custom_llm_provider") == "cached_response":
            self.watch.forget()
            return
        self._reader.follow(stream)
        setattr(stream, _MARK, self.watch)
        self.watch.owned_by(stream)
        self.watch.rest()


class LitellmIntegration:
    """Counts the calls of litellm's completions and embeddings, synchronous and asynchronous, and its router's."""

    name = _NAME
    module = _NAME
    versions = ("1.80", "2")
    functions = ("litellm.completion", "litellm.acompletion", "litellm.embedding", "litellm.aembedding")
    """What it replaces in the module: `sage-obs doctor` finds programs that have taken the originals before."""

    def __init__(self) -> None:
        self._usage = StreamUsage()
        self._patches = Patches()

    def install(self) -> None:
        """Patch the functions and the class of streams."""
        import litellm

        stream = litellm.CustomStreamWrapper
        self._patches.install(
            Patch(litellm, "completion", functools.partial(self._sync, "chat")),
            Patch(litellm, "acompletion", functools.partial(self._async, "chat")),
            Patch(litellm, "embedding", functools.partial(self._sync, "embeddings")),
            Patch(litellm, "aembedding", functools.partial(self._async, "embeddings")),
            Patch(stream, "__next__", _next),
            Patch(stream, "__anext__", _anext),
            Patch(stream, "close", _close),
            Patch(stream, "aclose", _aclose),
        )

    def uninstall(self) -> None:
        """Put them back."""
        self._patches.uninstall()

    def _sync(self, operation: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def called(*args: Any, **kwargs: Any) -> Any:
            asked = _Asked.of(args, kwargs, operation, self._usage)
            if asked is None:
                return original(*args, **kwargs)
            while True:
                try:
                    with Counting():
                        answer = original(*args, **asked.arguments)
                except BaseException as exc:
                    if not asked.again(exc, kwargs):
                        raise
                else:
                    return asked.answered(answer)

        return called

    def _async(self, operation: str, original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(original)
        async def called(*args: Any, **kwargs: Any) -> Any:
            asked = _Asked.of(args, kwargs, operation, self._usage)
            if asked is None:
                return await original(*args, **kwargs)
            while True:
                try:
                    with Counting():
                        answer = await original(*args, **asked.arguments)
                except BaseException as exc:
                    if not asked.again(exc, kwargs):
                        raise
                else:
                    return asked.answered(answer)

        return called


def _watch_of(stream: Any) -> Watch | None:
    found: Watch | None = vars(stream).get(_MARK)
    return found


def _next(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(original)
    def __next__(stream: Any) -> Any:  # noqa: N807 - it replaces the method
        watch = _watch_of(stream)
        if watch is None:
            return original(stream)

        def advance() -> Any:
            with Counting():
                return original(stream)

        return step(watch, advance)

    return __next__


def _anext(original: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
    @functools.wraps(original)
    async def __anext__(stream: Any) -> Any:  # noqa: N807 - it replaces the method
        watch = _watch_of(stream)
        if watch is None:
            return await original(stream)

        async def advance() -> Any:
            with Counting():
                return await original(stream)

        return await step_async(watch, advance)

    return __anext__


def _close(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def close(stream: Any, *args: Any, **kwargs: Any) -> Any:
        if (watch := _watch_of(stream)) is not None:
            watch.closed(cut=True)
        return original(stream, *args, **kwargs)

    return close


def _aclose(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def aclose(stream: Any, *args: Any, **kwargs: Any) -> Any:
        if (watch := _watch_of(stream)) is not None:
            watch.closed(cut=True)
        return await original(stream, *args, **kwargs)

    return aclose


INTEGRATION: Final = LitellmIntegration()
