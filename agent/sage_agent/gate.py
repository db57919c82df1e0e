"""Bounded work: so many at once, so many waiting, and no more."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from typing import Final

from sage_agent.problems import QueueFullError
from sage_agent.within import Within, running_loop

_SMOOTHING: Final = 0.1
"""The weight of the last departure in how often somebody leaves."""


class Gate:
    """Lets `size` holders in; others wait in order of arrival, at most `queue` of them (None: any number). It belongs to one loop.

    Nobody begins to wait who would wait longer than `patience` seconds, as far as the last departures tell: they are told at once,
    while what waits already is served in time. A queue that is only bounded in length keeps everybody waiting for all of it.
    """

    def __init__(self, size: int, *, queue: int | None = None, patience: float = math.inf) -> None:
        self.size = size
        self.queue = queue
        self._patience = patience
        self._apart = 0.0
        """Seconds between departures while somebody waits."""
        self._left = 0.0
        self._free = size
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait to come in."""
        return len(self._waiting)

    @property
    def inside(self) -> int:
        """How many are in."""
        return self.size - self._free

    def enter(self) -> bool:
        """Come in if there is a place and nobody waits for it."""
        if self._free > 0 and not self._waiting:
            self._free -= 1
            return True
        return False

    async def acquire(self, *, deadline: float) -> None:
        """Come in, or wait until `deadline` (the event loop's time). Raises QueueFullError at once, TimeoutError at the deadline."""
        if self.enter():
            return
        loop = running_loop()
        expected = (len(self._waiting) + 1) * self._apart
        if self.queue is not None and (len(self._waiting) >= self.queue or expected > self._patience):
            raise QueueFullError(expected)
        if not self._waiting:
            self._left = loop.time()
        turn = loop.create_future()
        self._waiting.append(turn)
        try:
            with Within(deadline):
                await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.release()
            else:
                with contextlib.suppress(ValueError):  # whoever left meanwhile has passed it over
                    self._waiting.remove(turn)
            raise

    def release(self) -> None:
        """Leave; whoever waited longest comes in."""
        if self._waiting:
            now = running_loop().time()
            self._apart += _SMOOTHING * (now - self._left - self._apart)
            self._left = now
        self._free += 1
        self._let_in()

    def resize(self, size: int) -> None:
        """Let so many in from now on. Who is in stays; where that is more, nobody comes in until enough have left."""
        self._free += size - self.size
        self.size = size
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._free > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                self._free -= 1
                turn.set_result(None)
