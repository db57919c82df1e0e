"""How many calls a target bears at once, found out by what it says: fewer after a 429, one more after as many calls went well."""

from __future__ import annotations

from typing import Final

import sage_obs
from sage_agent.gate import Gate
from sage_obs.conventions import LLM_CONCURRENCY_LIMIT

_DECREASE: Final = 0.5
"""Additive increase and multiplicative decrease share a bottleneck fairly (Chiu and Jain, 1989); TCP halves too."""


class Limiter:
    """Bounds the calls to a target, `most` where it has not complained. It belongs to one event loop.

    A call is admitted with a number: the 429 of one that began before the last decrease says nothing that is not known. Who has to
    wait does so in order of arrival.
    """

    def __init__(self, target: str, most: int) -> None:
        self.target = target
        self._most = most
        self._limit = float(most)
        self._era = 0
        self._gate = Gate(most)

    @property
    def limit(self) -> int:
        """How many calls may be under way."""
        return self._gate.size

    def enter(self) -> int | None:
        """Begin a call: the number it ends under. None where it has to wait."""
        return self._era if self._gate.enter() else None

    async def wait(self, *, deadline: float) -> int:
        """Begin a call when there is a place for it. Raises TimeoutError where there is none until `deadline`, in the loop's time."""
        with sage_obs.waiting():
            await self._gate.acquire(deadline=deadline)
        return self._era

    def leave(self, era: int, *, limited: bool | None) -> None:
        """End a call; `limited` is whether it was refused as one too many, None where it says nothing of that."""
        self._gate.release()
        if limited is None or (limited and era != self._era) or (not limited and self._limit >= self._most):
            return
        if limited:
            self._era += 1
            self._become(max(1.0, self._limit * _DECREASE))
        else:
            self._become(min(float(self._most), self._limit + 1 / self._limit))

    def expose(self) -> None:
        """Put the limit on /metrics."""
        sage_obs.series(LLM_CONCURRENCY_LIMIT, self.target).set(self.limit)

    def _become(self, limit: float) -> None:
        self._limit = limit
        if int(limit) != self._gate.size:
            self._gate.resize(int(limit))
            self.expose()
