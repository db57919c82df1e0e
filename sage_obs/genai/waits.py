"""Waiting that is not the agent's own time: it is taken out of a request's overhead."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

from sage_obs.genai.steps import in_steps
from sage_obs.tracing.context import Waiting, request_var

P = ParamSpec("P")
R = TypeVar("R")


class tool:  # noqa: N801 - reads as a verb where it is used: @sage_obs.tool("search")
    """A call of a tool: a context manager, sync or async, and a decorator for functions of both kinds.

    The time inside is waiting, as for a language model: it is not part of the request's overhead. Waits of one request that overlap
    count once. Of a generator, each step is a call; requests may share one `tool`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._waits: list[Waiting | None] = []

    def __enter__(self) -> Self:
        waiting = _waiting()
        if waiting is not None:
            waiting.begin()
        self._waits.append(waiting)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        waiting = _waiting()
        try:
            self._waits.remove(waiting)
        except ValueError:  # a generator that is closed elsewhere ends the wait it began
            waiting = self._waits.pop()
        if waiting is not None:
            waiting.end()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function, each call of it one call of the tool."""
        if (stepwise := in_steps(function, lambda: tool(self.name))) is not None:
            return stepwise
        if not inspect.iscoroutinefunction(function):
            return self._around(function)

        @functools.wraps(function)
        async def waited(*args: P.args, **kwargs: P.kwargs) -> Any:
            with tool(self.name):
                return await cast("Awaitable[Any]", function(*args, **kwargs))

        return cast("Callable[P, R]", waited)

    def _around(self, function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def waited(*args: P.args, **kwargs: P.kwargs) -> R:
            with tool(self.name):
                return function(*args, **kwargs)

        return waited


def _waiting() -> Waiting | None:
    request = request_var.get()
    return None if request is None else request.waiting
