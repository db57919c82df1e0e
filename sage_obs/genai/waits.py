"""Waiting that is not the agent's own time: it is taken out of a request's overhead, and each wait is a step of the request."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from sage_obs.tracing.context import Waiting, request_var, under_way


class Wait:
    """The request being served here waits while this is entered. It may be entered again once it was left."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: Waiting | None = None

    def __enter__(self) -> Self:
        request = request_var.get()
        self._waiting = None if request is None else request.waiting
        if self._waiting is not None:
            self._waiting.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._waiting is not None:
            self._waiting.end()
            self._waiting = None


def waiting() -> Wait:
    """Keep the time in a block, such as the pause before a call is made again, out of the request's overhead."""
    return Wait()


def count_step(number: int = 1) -> None:
    """The request being served here calls a model or a tool; -1 where it turned out that it did not."""
    request = under_way()
    if request is not None:
        request.steps += number
