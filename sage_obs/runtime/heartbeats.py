"""How late an event loop is: a timer on each loop, and by how much it misses its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import Context
from typing import Final
from weakref import WeakSet

from sage_obs.metrics.active import internal_error
from sage_obs.metrics.cells import HistogramCell

INTERVAL_SECONDS: Final = 0.1
"""A callback that holds a loop for longer is met for certain, a shorter one in proportion to its length."""


class Heartbeats:
    """Beats on every loop it is told of. A timer is no task: it keeps no loop running, and a loop that ends takes it along, in silence.

    A loop that is run, left and run again counts as late for the time between.
    """

    def __init__(self, lag: HistogramCell, *, interval: float = INTERVAL_SECONDS, clock: Callable[[], float] = time.perf_counter) -> None:
        self._lag = lag
        self._interval = interval
        self._clock = clock
        self._loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        self._on = True

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beat on this loop from now on, in a context of its own: that of a request would stay with the timer. From any thread."""
        if loop in self._loops or not self._on:
            return
        try:
            self._loops.add(loop)
            loop.call_soon_threadsafe(self._begin, loop, context=Context())
        except Exception as exc:  # noqa: BLE001 - the loop may be closed by now, and is anybody's
            if not loop.is_closed():
                internal_error("runtime", exc)

    def stop(self) -> None:
        """Beat no more."""
        self._on = False

    def tasks(self) -> int:
        """The tasks that are not done on the loops that are watched."""
        return sum(_tasks(loop) for loop in list(self._loops) if not loop.is_closed())

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._on:
            loop.call_later(self._interval, self._beat, loop, self._clock() + self._interval, context=Context())

    def _beat(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        if self._on:
            self._lag.observe(max(0.0, self._clock() - due))
            self._begin(loop)


def _tasks(loop: asyncio.AbstractEventLoop) -> int:
    try:
        return len(asyncio.all_tasks(loop))
    except RuntimeError:  # a server's own stand-in for a task, such as that of granian 2.0, is among all tasks and has no loop
        return 0
