"""What OpenAI's and Anthropic's clients have in common, as one generator writes both.

Every call of every resource goes through the client's `request`, with the whole question in its options. The library's objects stay the
library's: of a stream only the iterator inside is replaced, of a raw response only how it hears of its end. Whatever is asked of the
answer later, such as `parse()` of a raw response, comes by the options' `post_parser`.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import weakref
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson

from sage_obs.conventions import ErrorType
from sage_obs.genai.calls import LlmCall
from sage_obs.genai.nesting import counted
from sage_obs.genai.requests import recorder
from sage_obs.genai.streams import AsyncSteps, Reader, Steps, Watch
from sage_obs.genai.transcript import Transcript
from sage_obs.integrations.patch import Patch, Patches
from sage_obs.metrics.active import internal_error

_RAW: Final = "x-stainless-raw-response"


@dataclass(frozen=True, slots=True)
class Question:
    """What a request asks, in the conventions' words, and who reads the answer.

    `more` is what is added to its body, `asked` writes down what is said in it where that is wanted.
    """

    provider: str
    model: str
    operation: str
    reader: Reader
    more: Mapping[str, object]
    asked: Callable[[Transcript], None] | None = None


class Dialect(Protocol):
    """What one provider's client says and hears."""

    @property
    def name(self) -> str:
        """The library, as errors are counted under it."""

    def question(self, client: Any, path: str, body: Mapping[str, Any], *, raw: bool) -> Question | None:
        """What a POST asks of a model; None where it asks none. `raw` says that the caller may read the answer's bytes."""

    def traces_itself(self, client: Any) -> bool:
        """Whether the caller has told this client what spans to make of its calls; else the one made here stands in their place."""

    def refused(self, client: Any, error: Exception) -> bool:
        """Whether this error is about what was added to the body; if so, nothing is added for this client's server again."""


class Clients:
    """Patches `request` of the synchronous and of the asynchronous client of a package."""

    def __init__(self, package: str, dialect: Dialect) -> None:
        self._package = package
        self._dialect = dialect
        self._patches = Patches()

    def install(self) -> None:
        """Patch both."""
        base = importlib.import_module(f"{self._package}._base_client")
        self._patches.install(Patch(base.SyncAPIClient, "request", self._sync), Patch(base.AsyncAPIClient, "request", self._async))

    def uninstall(self) -> None:
        """Put them back."""
        self._patches.uninstall()

    def _sync(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def request(client: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
            asked = _Asked.of(self._dialect, client, options)
            if asked is None:
                return original(client, cast_to, options, *args, **kwargs)
            try:
                answer = original(client, cast_to, asked.options, *args, **kwargs)
            except BaseException as exc:
                if not asked.refused(exc):
                    asked.watch.raised(exc)
                    raise
            else:
                return asked.answered(answer)
            return asked.again(lambda options: original(client, cast_to, options, *args, **kwargs))

        return request

    def _async(self, original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(original)
        async def request(client: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
            asked = _Asked.of(self._dialect, client, options)
            if asked is None:
                return await original(client, cast_to, options, *args, **kwargs)
            try:
                answer = await original(client, cast_to, asked.options, *args, **kwargs)
            except BaseException as exc:
                if not asked.refused(exc):
                    asked.watch.raised(exc)
                    raise
            else:
                return asked.answered(answer)
            return await asked.again_async(lambda options: original(client, cast_to, options, *args, **kwargs))

        return request


class _Asked:
    """One request that is measured."""

    __slots__ = ("_client", "_dialect", "_more", "_plain", "options", "watch")

    def __init__(self, dialect: Dialect, client: Any, options: Any, question: Question) -> None:
        self._dialect = dialect
        self._client = client
        self._more = question.more
        spans = not dialect.traces_itself(client)
        call = LlmCall(question.provider, question.model, operation=question.operation, spans=spans)
        self.watch = Watch(call, question.reader, dialect.name)
        if question.asked is not None:
            call.capture.say(question.asked)
        self._plain = _heard(options, self.watch)
        if call.traced and hasattr(options, "span_name"):
            self._plain.span_name = None
        self.options = copy.copy(self._plain)
        if question.more:
            self.options.json_data = {**options.json_data, **question.more}

    @classmethod
    def of(cls, dialect: Dialect, client: Any, options: Any) -> _Asked | None:
        """None while the layer is off, where something around this counts the call, or where no model is asked."""
        if recorder() is None or counted():
            return None
        try:
            question = _question(dialect, client, options)
            return None if question is None else cls(dialect, client, options, question)
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
            internal_error(dialect.name, exc)
            return None

    def refused(self, error: BaseException) -> bool:
        """Whether to ask again without what was added."""
        try:
            return bool(self._more) and isinstance(error, Exception) and self._dialect.refused(self._client, error)
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
            internal_error(self._dialect.name, exc)
            return False

    def again(self, ask: Callable[[Any], Any]) -> Any:
        """Ask what the caller asked."""
        try:
            return self.answered(ask(self._plain))
        except BaseException as exc:
            self.watch.raised(exc)
            raise

    async def again_async(self, ask: Callable[[Any], Awaitable[Any]]) -> Any:
        """The same for the asynchronous client."""
        try:
            return self.answered(await ask(self._plain))
        except BaseException as exc:
            self.watch.raised(exc)
            raise

    def answered(self, answer: Any) -> Any:
        """The client has its answer: a stream and a raw response are still to be read, everything else is over. Returns it."""
        try:
            if (response := getattr(answer, "http_response", None)) is not None:
                _follow_raw(response, self.watch)
            elif _is_stream(answer):
                self.watch.rest()
            else:
                self.watch.end()
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
            internal_error(self._dialect.name, exc)
            self.watch.end()
        return answer


def _question(dialect: Dialect, client: Any, options: Any) -> Question | None:
    if str(options.method).lower() != "post" or not isinstance(options.json_data, Mapping):
        return None
    headers = options.headers if isinstance(options.headers, Mapping) else {}
    raw = any(isinstance(name, str) and name.lower() == _RAW for name in headers)
    path = "/" + str(options.url).partition("?")[0].strip("/")
    return dialect.question(client, path, options.json_data, raw=raw)


def _heard(options: Any, watch: Watch) -> Any:
    """A copy of the options by which the watch hears of what the library makes of the answer."""
    then = options.post_parser if callable(options.post_parser) else _as_it_is

    def heard(parsed: Any) -> Any:
        if _is_stream(parsed):
            _follow_stream(parsed, watch)
        elif isinstance(parsed, str):
            watch.failed(ErrorType.SERVER_ERROR)  # the library returns what is not JSON as text
        else:
            watch.whole(parsed)
        return then(parsed)

    ours = copy.copy(options)
    ours.post_parser = heard
    return ours


def _as_it_is(parsed: Any) -> Any:
    return parsed


def _is_stream(answer: object) -> bool:
    return hasattr(type(answer), "__stream__")


def _follow_stream(stream: Any, watch: Watch) -> None:
    """Ask the stream's iterator in its place, and hear of its being closed or dropped."""
    if watch.over:
        return
    try:
        inner = stream._iterator  # noqa: SLF001 - the only place that every way of reading a stream goes through
        stream._iterator = AsyncSteps(inner, watch) if hasattr(inner, "__anext__") else Steps(inner, watch)  # noqa: SLF001 - the same
        watch.owned_by(stream, after=_Ending.of(stream.response, watch, cut=True).unhook)
    except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
        internal_error("stainless", exc)


def _follow_raw(response: Any, watch: Watch) -> None:
    """Read a raw response that has been read, else hear of its being read, closed or dropped."""
    if response.is_closed:
        _read(response, watch)
    else:
        watch.owned_by(response, after=_Ending.of(response, watch, cut=False).unhook)
        watch.rest()


def _read(response: Any, watch: Watch) -> None:
    with contextlib.suppress(orjson.JSONDecodeError, RuntimeError):  # not JSON; or it was read as a stream and nothing is left
        watch.whole(orjson.loads(response.content))
    watch.end()


class _Ending:
    """Hears of the end of an HTTP response through its own methods, which are its class's again afterwards."""

    __slots__ = ("_cut", "_response", "_watch")

    def __init__(self, response: Any, watch: Watch, *, cut: bool) -> None:
        self._response = weakref.ref(response)
        self._watch = watch
        self._cut = cut

    @classmethod
    def of(cls, response: Any, watch: Watch, *, cut: bool) -> _Ending:
        """Hook these methods of this one response; the stream that is made of a raw response hears of it before the raw one does."""
        ending = cls(response, watch, cut=cut)
        response.close, response.aclose = ending._sync(response.close), ending._async(response.aclose)
        if not cut:
            response.read, response.aread = ending._reading(response.read), ending._reading_async(response.aread)
        return ending

    def unhook(self) -> None:
        """Put the response's own methods back."""
        if (response := self._response()) is not None:
            for name in ("close", "aclose", "read", "aread"):
                vars(response).pop(name, None)

    def _sync(self, original: Callable[[], None]) -> Callable[[], None]:
        def close() -> None:
            self._watch.closed(cut=self._cut)
            original()

        return close

    def _async(self, original: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        async def aclose() -> None:
            self._watch.closed(cut=self._cut)
            await original()

        return aclose

    def _reading(self, original: Callable[[], bytes]) -> Callable[[], bytes]:
        def read() -> bytes:
            self._watch.waiting()
            try:
                body = original()
            except BaseException as exc:
                self._watch.end(exc)
                raise
            self._done()
            return body

        return read

    def _reading_async(self, original: Callable[[], Awaitable[bytes]]) -> Callable[[], Awaitable[bytes]]:
        async def aread() -> bytes:
            self._watch.waiting()
            try:
                body = await original()
            except BaseException as exc:
                self._watch.end(exc)
                raise
            self._done()
            return body

        return aread

    def _done(self) -> None:
        if (response := self._response()) is not None:
            _read(response, self._watch)
