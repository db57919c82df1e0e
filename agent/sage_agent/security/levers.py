"""What an admin can move in one process."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Final

import sage_obs
from sage_agent.server.line import Reach
from sage_agent.within import running_loop

LEVELS: Final = ("debug", "info", "warning", "error")
Everywhere = Callable[[str, Any], Awaitable[Reach]]
"""Has a change made by every process of the agent: its name, and the value where it has one."""


class Levers:
    """Makes changes here."""

    def __init__(self, clear_cache: Callable[[], Awaitable[None]]) -> None:
        self._clear_cache = clear_cache

    async def alone(self, name: str, value: Any = None) -> Reach:
        """Make a change where this process is the whole agent."""
        if name == "drain":
            running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)  # once the answer is out
        else:
            await self.apply(name, value)
        return Reach(1, 1)

    async def apply(self, name: str, value: Any) -> None:
        """Make a change. Raises ValueError for one that is unknown, and what emptying the cache raises."""
        match name:
            case "log-level":
                logging.getLogger().setLevel(str(value).upper())
            case "tracing":
                sage_obs.sampling(float(value))
            case "cache":
                await self._clear_cache()
            case _:
                raise ValueError(f"there is no change {name!r}")
