"""A deadline for what is awaited."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Within:
    """Ends what is awaited inside at `when`, in the loop's time, and raises TimeoutError then.

    As `asyncio.timeout_at`, for a loop that is known: asking which one is running costs a system call, and a request asks often.
    """

    __slots__ = ("_before", "_expired", "_loop", "_task", "_timer", "_when")

    def __init__(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        self._loop = loop
        self._when = when
        self._expired = False

    def __enter__(self) -> None:
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("there is no task to end")
        self._task = task
        self._before = task.cancelling()
        self._timer = self._loop.call_at(self._when, self._expire)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._timer.cancel()
        if self._expired and self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()
