"""Bounded work: so many at once, so many waiting, and no more."""

from __future__ import annotations

import asyncio

from sage_agent.problems import QueueFullError


class Gate:
    """Lets `size` holders in; others wait in order of arrival, at most `queue` of them (None: any number)."""

    def __init__(self, size: int, *, queue: int | None = None) -> None:
        self._places = asyncio.Semaphore(size)
        self._queue = queue
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """How many wait to come in."""
        return self._waiting

    async def acquire(self, *, deadline: float) -> None:
        """Come in, or wait until `deadline` (the event loop's time). Raises QueueFullError at once, TimeoutError at the deadline."""
        if not self._places.locked():
            await self._places.acquire()
            return
        if self._queue is not None and self._waiting >= self._queue:
            raise QueueFullError
        self._waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                await self._places.acquire()
        finally:
            self._waiting -= 1

    def release(self) -> None:
        """Leave; whoever waited longest comes in."""
        self._places.release()
