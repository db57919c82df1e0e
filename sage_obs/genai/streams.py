"""A call whose answer the caller may take in pieces: read to its end, closed early or dropped, it is counted exactly once."""

from __future__ import annotations

import json
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final, Protocol, Self

from sage_obs.conventions import STREAMS_ABANDONED, ErrorType
from sage_obs.genai.calls import LlmCall
from sage_obs.genai.taxonomy import classify
from sage_obs.metrics.active import internal_error, store


class Reader(Protocol):
    """Reads one answer of one provider into a call. It may raise: that is counted, and the caller never notices."""

    def whole(self, call: LlmCall, answer: Any) -> None:
        """Read an answer that came in one piece, as the library's object or as the mapping it was made from."""

    def piece(self, call: LlmCall, item: Any) -> bool:
        """Read one item of a stream; whether the caller is to see it."""


class Watch:
    """A call from before it goes out to its one end.

    `component` is what errors and abandoned streams are counted under. There are no locks: the garbage collector may run `abandoned` in
    the middle of anything here.
    """

    __slots__ = ("__weakref__", "_after", "_call", "_component", "_ending", "_owner", "_reader", "_stepping")

    def __init__(self, call: LlmCall, reader: Reader, component: str) -> None:
        self._call = call
        self._reader = reader
        self._component = component
        self._ending: list[None] = [None]
        self._stepping = False
        self._owner: weakref.finalize[[], Any] | None = None
        self._after: Callable[[], None] | None = None
        self._guarded(call.begin)

    @property
    def over(self) -> bool:
        """Whether the call has been counted."""
        return not self._ending

    def whole(self, answer: object) -> None:
        """The whole answer is here; the call is not over before `end` says so."""
        if not self.over:
            self._guarded(lambda: self._reader.whole(self._call, answer))

    def failed(self, error_type: ErrorType) -> None:
        """The answer is no answer, though nothing is raised."""
        if not self.over:
            self._call.fail(error_type)

    def rest(self) -> None:
        """The caller has what there is so far."""
        if not self.over:
            self._guarded(self._call.pause)

    def owned_by(self, owner: object, *, after: Callable[[], None] | None = None) -> None:
        """Who drops this object without having read or closed it has abandoned the stream. `after` runs when the call is over."""
        self._disown()
        self._after = after or self._after
        if not self.over:
            self._owner = weakref.finalize(owner, self.abandoned)
            self._owner.atexit = False

    def waiting(self) -> None:
        """The caller asks for the next item."""
        self._stepping = True
        if not self.over:
            self._guarded(self._call.resume)

    def took(self, item: object) -> bool:
        """The caller is handed an item; whether it is one to show."""
        shown = True
        try:
            if not self.over:
                shown = self._reader.piece(self._call, item)
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
            internal_error(self._component, exc)
        self._stepping = False
        self.rest()
        return shown

    def end(self, error: BaseException | None = None, *, abandoned: bool = False) -> None:
        """The call is over; only the first end counts."""
        self._stepping = False
        try:
            self._ending.pop()
        except IndexError:
            return
        self._disown()
        if isinstance(error, json.JSONDecodeError):  # what was to be read came from the provider
            self._call.fail(ErrorType.SERVER_ERROR)
        self._guarded(lambda: self._call.end(error, abandoned=abandoned))
        if self._after is not None:
            self._guarded(self._after)
            self._after = None

    def raised(self, error: BaseException) -> None:
        """The library has raised. After a complete answer an error of an unknown kind is about what was made of it, not the call's."""
        self.end(None if self._call.complete and classify(error) is ErrorType.INTERNAL else error)

    def forget(self) -> None:
        """No model was asked: nothing is counted."""
        if self._ending:
            self._ending.pop()
            self._disown()
            self._guarded(self._call.forget)

    def closed(self, *, cut: bool) -> None:
        """The caller has closed the answer. With `cut` that is a cancellation, unless the model had finished."""
        if self._stepping or self.over:
            return
        if cut and not self._call.complete:
            self._call.fail(ErrorType.CANCELLED)
        self.end()

    def abandoned(self) -> None:
        """The caller has dropped the answer half-way. The garbage collector calls this, wherever it happens to run."""
        if self.over:
            return
        self._guarded(lambda: store().cell(STREAMS_ABANDONED, self._component).add())
        if not self._call.complete:
            self._call.fail(ErrorType.CANCELLED)
        self.end(abandoned=True)

    def _disown(self) -> None:
        if self._owner is not None:
            self._owner.detach()
            self._owner = None

    def _guarded(self, telemetry: Callable[[], object]) -> None:
        try:
            telemetry()
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
            internal_error(self._component, exc)


def step(watch: Watch, advance: Callable[[], Any]) -> Any:
    """The next item that the caller is to see."""
    while True:
        watch.waiting()
        try:
            item = advance()
        except StopIteration:
            watch.end()
            raise
        except BaseException as exc:
            watch.end(exc)
            raise
        if watch.took(item):
            return item


async def step_async(watch: Watch, advance: Callable[[], Awaitable[Any]]) -> Any:
    """The same of an asynchronous iterator."""
    while True:
        watch.waiting()
        try:
            item = await advance()
        except StopAsyncIteration:
            watch.end()
            raise
        except BaseException as exc:
            watch.end(exc)
            raise
        if watch.took(item):
            return item


class Steps:
    """An iterator in the place of a library's own, which it asks."""

    def __init__(self, inner: Iterator[Any], watch: Watch) -> None:
        self._inner: Final = inner
        self._watch: Final = watch

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return step(self._watch, self._inner.__next__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class AsyncSteps:
    """The same for an asynchronous iterator."""

    def __init__(self, inner: AsyncIterator[Any], watch: Watch) -> None:
        self._inner: Final = inner
        self._watch: Final = watch

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return await step_async(self._watch, self._inner.__anext__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
