"""langchain's chat models: a call is counted here where the client library below has no integration, and there where it has one."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, Final

from sage_obs.genai.calls import LlmCall
from sage_obs.genai.nesting import Below, counted
from sage_obs.genai.requests import recorder
from sage_obs.genai.streams import Watch, step, step_async
from sage_obs.genai.usage import Usage, part
from sage_obs.integrations.patch import Patch, Patches
from sage_obs.metrics.active import internal_error

_NAME: Final = "langchain"
_UNKNOWN: Final = "unknown"
_PROVIDERS: Final = {
    "amazon_bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "ibm": "ibm.watsonx.ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "xai": "x_ai",
}
"""Its names for providers in the conventions' words, where they differ."""
_MODEL, _REASON = ("model_name", "model", "model_id"), ("finish_reason", "stop_reason", "done_reason")
"""What integrations of providers call the two in the metadata of an answer."""


class LangchainIntegration:
    """Counts the calls of chat models, whole and streamed, synchronous and asynchronous."""

    name = _NAME
    distribution = "langchain-core"
    module = "langchain_core.language_models.chat_models"
    versions = ("1.0", "2")

    def __init__(self) -> None:
        self._patches = Patches()

    def install(self) -> None:
        """Patch what `invoke`, `batch` and `generate` go through, and the two streams."""
        from langchain_core.language_models.chat_models import BaseChatModel

        self._patches.install(
            Patch(BaseChatModel, "_generate_with_cache", _whole),
            Patch(BaseChatModel, "_agenerate_with_cache", _whole_async),
            Patch(BaseChatModel, "stream", _stream),
            Patch(BaseChatModel, "astream", _stream_async),
        )

    def uninstall(self) -> None:
        """Put them back."""
        self._patches.uninstall()


class _Answers:
    """Reads langchain's messages, each chunk of which has the usage that it adds."""

    def __init__(self) -> None:
        self._usage = Usage()

    def whole(self, call: LlmCall, answer: Any) -> None:
        """Read a result, whose first generation is the answer."""
        generations = part(answer, "generations")
        for generation in generations if isinstance(generations, list) else ():
            self._read(call, part(generation, "message"))

    def piece(self, call: LlmCall, item: Any) -> bool:
        """Read a chunk; it is always for the caller."""
        if part(item, "content") or part(item, "tool_call_chunks"):
            call.first_token()
        self._read(call, item)
        return True

    def _read(self, call: LlmCall, message: object) -> None:
        metadata = part(message, "response_metadata")
        model = next((found for name in _MODEL if (found := part(metadata, name))), None)
        reason = next((found for name in _REASON if (found := part(metadata, name))), None)
        call.response(model=model, id=part(message, "id"), finish_reasons=() if reason is None else (reason,))
        if (sent := part(message, "usage_metadata")) is not None:
            self._usage = self._usage.plus(_usage(sent))
            call.used(self._usage)


def _usage(sent: object) -> Usage:
    return Usage.of(
        input=part(sent, "input_tokens"),
        output=part(sent, "output_tokens"),
        cached_read=part(sent, "input_token_details", "cache_read"),
        cached_write=part(sent, "input_token_details", "cache_creation"),
        reasoning=part(sent, "output_token_details", "reasoning"),
    )


class _Asked:
    """One call that is measured until something below is heard of, which then counts it alone."""

    __slots__ = ("below", "watch")

    def __init__(self, model: Any, kwargs: dict[str, Any]) -> None:
        params = model._get_ls_params(**{key: value for key, value in kwargs.items() if key in {"stop", "model"}})  # noqa: SLF001 - what langchain itself asks
        said = str(part(params, "ls_provider") or _UNKNOWN)
        call = LlmCall(_PROVIDERS.get(said, said), str(part(params, "ls_model_name") or _UNKNOWN))
        self.watch = Watch(call, _Answers(), _NAME)
        self.below = Below()

    @classmethod
    def of(cls, model: Any, kwargs: dict[str, Any]) -> _Asked | None:
        """None while the layer is off, and where something around this counts the call."""
        if recorder() is None or counted():
            return None
        try:
            return cls(model, kwargs)
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
            internal_error(_NAME, exc)
            return None

    def _settle(self) -> None:
        """Leave the call to whoever counts it below, if anybody does."""
        if self.below.heard:
            self.watch.forget()

    def answered(self, answer: Any) -> Any:
        """The answer is here. One out of a cache was no call. Returns it."""
        if _from_cache(answer):
            self.watch.forget()
        self.watch.whole(answer)
        self.watch.end()
        return answer

    def advance(self, advance: Callable[[], Any]) -> Any:
        """Ask the library; what is known of those below afterwards is settled."""
        try:
            with self.below:
                return advance()
        finally:
            self._settle()

    async def advance_async(self, advance: Callable[[], Awaitable[Any]]) -> Any:
        """The same asynchronously."""
        try:
            with self.below:
                return await advance()
        finally:
            self._settle()


def _from_cache(answer: object) -> bool:
    generations = part(answer, "generations")
    first = generations[0] if isinstance(generations, list) and generations else None
    return part(first, "message", "usage_metadata", "total_cost") == 0


def _whole(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def generate(self: Any, *args: Any, **kwargs: Any) -> Any:
        asked = _Asked.of(self, kwargs)
        if asked is None:
            return original(self, *args, **kwargs)
        try:
            answer = asked.advance(lambda: original(self, *args, **kwargs))
        except BaseException as exc:
            asked.watch.raised(exc)
            raise
        return asked.answered(answer)

    return generate


def _whole_async(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def agenerate(self: Any, *args: Any, **kwargs: Any) -> Any:
        asked = _Asked.of(self, kwargs)
        if asked is None:
            return await original(self, *args, **kwargs)
        try:
            answer = await asked.advance_async(lambda: original(self, *args, **kwargs))
        except BaseException as exc:
            asked.watch.raised(exc)
            raise
        return asked.answered(answer)

    return agenerate


def _stream(original: Callable[..., Generator[Any, None, None]]) -> Callable[..., Generator[Any, None, None]]:
    @functools.wraps(original)
    def stream(self: Any, *args: Any, **kwargs: Any) -> Generator[Any, None, None]:
        inner, asked = original(self, *args, **kwargs), _Asked.of(self, kwargs)
        if asked is None:
            yield from inner
            return
        try:
            while True:
                yield step(asked.watch, lambda: asked.advance(functools.partial(next, inner)))
        except StopIteration:
            return
        except GeneratorExit:
            asked.watch.closed(cut=True)
            inner.close()
            raise

    return stream


def _stream_async(original: Callable[..., AsyncGenerator[Any, None]]) -> Callable[..., AsyncGenerator[Any, None]]:
    @functools.wraps(original)
    async def astream(self: Any, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        inner, asked = original(self, *args, **kwargs), _Asked.of(self, kwargs)
        if asked is None:
            async for item in inner:
                yield item
            return
        try:
            while True:
                yield await step_async(asked.watch, lambda: asked.advance_async(inner.__anext__))
        except StopAsyncIteration:
            return
        except GeneratorExit:
            asked.watch.closed(cut=True)
            await inner.aclose()
            raise

    return astream


INTEGRATION: Final = LangchainIntegration()
