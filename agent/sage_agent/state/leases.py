"""Limits that ask their store less often than they are asked: several at once for those who wait together, none for who was refused.

With `seconds` a worker also keeps what it has taken for that long. The workers together never admit more than a limit does: what is used in
a stretch of time was taken in that time or `seconds` before it, so that a burst which is smaller by what comes back in `seconds` makes up
for it. A limit whose burst has no room for that is asked for each time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from sage_agent.state.base import Limits, Rate, Taken

_MOST: Final = 10_000
"""Keys that something is kept of; who is forgotten asks the store again."""
_SHUT_SECONDS: Final = 1.0
"""A refusal is repeated for so long at most before the store is asked again."""


@dataclass(slots=True)
class _Held:
    """What a worker knows of a key: how many it may still admit until when, and what it was told last, at which moment."""

    left: int = 0
    until: float = -math.inf
    told: Taken = field(default_factory=lambda: Taken(allowed=True, remaining=0, retry_after=0.0, reset_after=0.0))
    at: float = -math.inf
    want: int = 1
    waiting: list[asyncio.Future[Taken]] = field(default_factory=list)
    asking: asyncio.Task[None] | None = None

    def here(self, now: float) -> Taken | None:
        """The answer that can be given without asking."""
        if self.left and now < self.until:
            self.left -= 1
            return self.admitted(now)
        if not self.told.allowed and now < self.at + min(self.told.retry_after, _SHUT_SECONDS):
            return self.refused(now)
        return None

    def adapt(self, now: float, most: int) -> None:
        """Want twice as many where the last did not last, and fewer where some were left."""
        self.want = min(most, 2 * self.want) if not self.left and now < self.until else max(1, self.want - self.left)

    def admitted(self, now: float) -> Taken:
        """One of those there are."""
        return replace(self.told, remaining=self.told.remaining + self.left, reset_after=max(0.0, self.told.reset_after - (now - self.at)))

    def refused(self, now: float) -> Taken:
        """What was said, as of now."""
        passed = now - self.at
        wait, reset = max(1e-3, self.told.retry_after - passed), max(0.0, self.told.reset_after - passed)
        return replace(self.told, retry_after=wait, reset_after=reset)


class LeasedLimits:
    """Implements `Limits` around another. It belongs to one event loop; `clock` is in seconds."""

    def __init__(self, limits: Limits, *, seconds: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._seconds = seconds
        self._clock = clock
        self._held: dict[str, _Held] = {}

    async def take(self, key: str, rate: Rate, *, cost: int = 1) -> Taken:
        """Take from a limit, or from what was taken of it. Raises StateError."""
        kept = math.ceil(rate.per_second * self._seconds)
        if cost != 1 or kept >= rate.burst:
            return await self._limits.take(key, rate, cost=cost)
        held = self._find(key)
        if not held.waiting and (answer := held.here(self._clock())) is not None:
            return answer
        mine: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        held.waiting.append(mine)
        if held.asking is None:
            held.asking = asyncio.create_task(self._ask(key, replace(rate, burst=rate.burst - kept), held, most=max(1, kept)))
        return await mine

    def _find(self, key: str) -> _Held:
        held = self._held.get(key)
        if held is None:
            if len(self._held) >= _MOST:
                self._held = {name: one for name, one in self._held.items() if one.asking is not None}
            held = self._held[key] = _Held()
        return held

    async def _ask(self, key: str, rate: Rate, held: _Held, *, most: int) -> None:
        """Ask for all who wait, until nobody does."""
        try:
            while held.waiting:
                waiting, held.waiting = self._from_here(held), []
                if not waiting:
                    continue
                held.adapt(self._clock(), most)
                try:
                    await self._ask_for(key, rate, held, count=min(rate.burst, max(held.want, len(waiting))))
                except Exception as exc:  # noqa: BLE001 - whoever waits is told, whatever it is
                    for one in waiting:
                        if not one.done():
                            one.set_exception(exc)
                else:
                    held.waiting[:0] = self._answer(waiting, held)
        finally:
            held.asking = None

    def _from_here(self, held: _Held) -> list[asyncio.Future[Taken]]:
        """Answer those who came while others were asked for, as far as there is an answer; who is left."""
        rest = [one for one in held.waiting if not one.done()]
        while rest and (answer := held.here(self._clock())) is not None:
            rest.pop(0).set_result(answer)
        return rest

    async def _ask_for(self, key: str, rate: Rate, held: _Held, *, count: int) -> None:
        """Take so many, or as many as there are."""
        at = self._clock()
        taken = await self._limits.take(key, rate, cost=count)
        if not taken.allowed and taken.remaining:
            count = taken.remaining
            taken = await self._limits.take(key, rate, cost=count)
        held.left, held.until = (count, at + self._seconds) if taken.allowed else (0, at)
        held.told, held.at = taken if taken.allowed else self._for_one(taken, rate, count), at

    def _for_one(self, refused: Taken, rate: Rate, count: int) -> Taken:
        """A refusal of several as one of a single one; whoever keeps some lets several come back before the store is asked again."""
        wait = refused.retry_after - (count - 1) / rate.per_second
        return replace(refused, retry_after=max(wait, 1e-3 / rate.per_second, self._seconds / 4))

    def _answer(self, waiting: list[asyncio.Future[Taken]], held: _Held) -> list[asyncio.Future[Taken]]:
        """Admit as many as there are, and refuse who was refused; the rest has to ask again."""
        still = [one for one in waiting if not one.done()]
        for one in still[: held.left]:
            held.left -= 1
            one.set_result(held.admitted(self._clock()))
        rest = [one for one in still if not one.done()]
        if held.told.allowed:
            return rest
        for one in rest:
            one.set_result(held.refused(self._clock()))
        return []
