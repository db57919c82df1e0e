"""Waiting for a database no longer than one wants to."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")
_AGAIN_SECONDS: Final = 0.5


class Bounded:
    """Runs what asks a database; whoever waits goes on after `seconds` with a TimeoutError.

    Cancelling is not enough: a client that is interrupted first asks the server to stop, or waits for a connection to close, and a
    server behind a dead network answers neither. What was given up on is interrupted until it ends, which nobody waits for.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._abandoned: set[asyncio.Task[Any]] = set()

    async def run(self, asked: Coroutine[Any, Any, T]) -> T:
        """Its result. Raises TimeoutError, and what it raises."""
        task = asyncio.ensure_future(asked)
        try:
            await asyncio.wait((task,), timeout=self.seconds)
        finally:
            if not task.done():
                self._abandon(task)
        if not task.done():
            raise TimeoutError
        return task.result()

    async def close(self) -> None:
        """Wait for what was given up on, for as long as for anything."""
        if self._abandoned:
            await asyncio.wait(self._abandoned, timeout=self.seconds)

    def _abandon(self, task: asyncio.Task[Any]) -> None:
        self._abandoned.add(task)
        task.add_done_callback(self._ended)

        def interrupt() -> None:
            if not task.done():
                task.cancel()
                task.get_loop().call_later(_AGAIN_SECONDS, interrupt)

        interrupt()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()  # nobody else asks, and asyncio would complain
