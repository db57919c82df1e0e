"""Generators with something around each of their steps, and nothing of it left in the context of those who iterate."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextvars import copy_context
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


class Step(Protocol):
    """What is entered for every step of one iteration.

    What its exit hears is how the step ended: with None at a yield, with StopIteration or StopAsyncIteration at the end, with
    GeneratorExit where nobody goes on.
    """

    def __enter__(self) -> object:
        """A step begins."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """It has ended."""

    def given(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """What the generator is called with, inside of its first step."""

    def gave(self, item: object) -> None:
        """What it yields, inside of the step that does."""


Around = Callable[[], Step]
"""Makes what is entered, for each iteration."""


def in_steps(function: Callable[P, R], around: Around) -> Callable[P, R] | None:
    """The function with `around` each step where it is a generator function, sync or async; None where it is none."""
    if inspect.isgeneratorfunction(function):
        return cast("Callable[P, R]", _generator(function, around))
    if inspect.isasyncgenfunction(function):
        return cast("Callable[P, R]", _async_generator(function, around))
    return None


def _generator(function: Callable[P, Generator[Any, Any, Any]], around: Around) -> Callable[P, Generator[Any, Any, Any]]:
    @functools.wraps(function)
    def stepped(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, Any]:
        inner, step = function(*args, **kwargs), around()

        def first() -> Any:
            step.given(function, args, kwargs)
            return next(inner)

        advance: Callable[[], Any] = functools.partial(_advance, step, first)
        while True:
            try:
                item = advance()
            except StopIteration as end:
                return end.value
            try:
                advance = functools.partial(_advance, step, functools.partial(inner.send, (yield item)))
            except GeneratorExit as exc:
                advance = functools.partial(_closed, step, functools.partial(inner.throw, exc))
            except BaseException as exc:  # noqa: BLE001 - whatever is thrown in is the function's to see
                advance = functools.partial(_advance, step, functools.partial(inner.throw, exc))

    return stepped


def _advance(step: Step, advance: Callable[[], Any]) -> Any:
    with step:
        item = advance()
        step.gave(item)
    return item


def _closed(step: Step, advance: Callable[[], Any]) -> Any:
    """The last step of a generator that is closed, in a copy of the context.

    The garbage collector may close it in the middle of a `ContextVar.set`, and CPython 3.11 does not survive another one in that context.
    """
    return copy_context().run(_advance, step, advance)


def _async_generator(function: Callable[P, AsyncGenerator[Any, Any]], around: Around) -> Callable[P, AsyncGenerator[Any, Any]]:
    @functools.wraps(function)
    async def stepped(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Any, Any]:
        inner, step = function(*args, **kwargs), around()

        async def first() -> Any:
            step.given(function, args, kwargs)
            return await inner.__anext__()

        advance: Callable[[], Awaitable[Any]] = first
        while True:
            try:
                with step:
                    item = await advance()
                    step.gave(item)
            except StopAsyncIteration:
                return
            try:
                advance = functools.partial(inner.asend, (yield item))
            except BaseException as exc:  # noqa: BLE001 - whatever is thrown in is the function's to see
                advance = functools.partial(inner.athrow, exc)

    return stepped
