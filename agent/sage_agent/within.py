"""A deadline for what is awaited."""

from __future__ import annotations

import asyncio
import os
import threading
from types import TracebackType


class _Known:
    __slots__ = ("loop", "thread")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread = 0


_known = _Known()
os.register_at_fork(after_in_child=_known.forget)


def running_loop() -> asyncio.AbstractEventLoop:
    """The running event loop, as `asyncio.get_running_loop`, which makes a system call each time it is asked (CPython 3.11)."""
    loop = _known.loop
    if loop is None or _known.thread != threading.get_ident() or not loop.is_running():
        loop = _known.loop = asyncio.get_running_loop()
        _known.thread = threading.get_ident()
    return loop


class Within:
    """Ends what is awaited inside at `when`, in the loop's time, and raises TimeoutError then.

    As `asyncio.timeout_at`, at a fraction of the price.
    """

    __slots__ = ("_before", "_expired", "_task", "_timer", "_when")

    def __init__(self, when: float) -> None:
        self._when = when
        self._expired = False

    def __enter__(self) -> None:
        loop = running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("there is no task to end")
        self._task = task
        self._before = task.cancelling()
        self._timer = loop.call_at(self._when, self._expire)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._timer.cancel()
        if self._expired and self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()
