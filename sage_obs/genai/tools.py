"""`sage_obs.tool`: what an agent uses, measured as a function or as a block."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

from sage_obs.genai.steps import in_steps
from sage_obs.genai.toolcalls import InOnePiece, InSteps, ToolCall
from sage_obs.tracing.context import Request, request_var

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _Open:
    """A block that was entered: where, for which request, and its call."""

    where: object
    request: Request | None
    call: ToolCall


class tool:  # noqa: N801 - reads as a verb where it is used: @sage_obs.tool("search")
    """A call of a tool: a context manager, sync or async, and a decorator for functions of both kinds.

    Each is counted and timed under the tool's name and has an `execute_tool` span, in which the spans of what a function calls are
    nested. The time inside is waiting, as for a language model: it is not part of the request's overhead. Waits of one request that
    overlap count once. A generator is one call from its first step to its end, as long as its steps are together; one that nobody
    iterates to the end was cancelled. Requests may share one `tool`.

    `content` is how much of what a function is given and returns goes on its span: `full`, or nothing; None leaves that to the context
    around and the setting.
    """

    def __init__(self, name: str, *, content: str | None = None) -> None:
        self.name = name
        self._content = content
        self._open: list[_Open] = []

    def __enter__(self) -> Self:
        call = ToolCall(self.name, attach=False)  # the block may be left half way, by a generator around it
        call.enter()
        self._open.append(_Open(_where(), request_var.get(), call))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        call = self._take()
        if call is not None:
            call.leave()
            call.finish(error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function, each call of it one call of the tool; it knows the tool's name as `__sage_tool__`."""
        measured = self._measured(function)
        vars(measured)["__sage_tool__"] = self.name
        return measured

    def _measured(self, function: Callable[P, R]) -> Callable[P, R]:
        if (stepwise := in_steps(function, lambda: InSteps(self._call()))) is not None:
            return stepwise
        if not inspect.iscoroutinefunction(function):
            return self._around(function)

        @functools.wraps(function)
        async def waited(*args: P.args, **kwargs: P.kwargs) -> Any:
            with InOnePiece(call := self._call()):
                call.given(function, args, kwargs)
                result = await cast("Awaitable[Any]", function(*args, **kwargs))
                call.answered(result)
                return result

        return cast("Callable[P, R]", waited)

    def _around(self, function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def waited(*args: P.args, **kwargs: P.kwargs) -> R:
            with InOnePiece(call := self._call()):
                call.given(function, args, kwargs)
                result = function(*args, **kwargs)
                call.answered(result)
                return result

        return waited

    def _call(self) -> ToolCall:
        return ToolCall(self.name, attach=True, content=self._content)

    def _take(self) -> ToolCall | None:
        """The call that ends here: this task's, else this request's, else, for a generator that is closed elsewhere, the last one."""
        where, request = _where(), request_var.get()
        candidates = [one for one in self._open if one.request is request] or self._open
        candidates = [one for one in candidates if one.where is where] or candidates
        if not candidates:
            return None
        found = candidates[-1]
        self._open.remove(found)
        return found.call


def _where() -> object:
    """The task that runs here, or the thread."""
    try:
        return asyncio.current_task() or threading.current_thread()
    except RuntimeError:  # no loop runs here
        return threading.current_thread()
