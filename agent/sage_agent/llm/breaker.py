"""A circuit breaker: where too many calls fail, none is made for a while, and then one, to see."""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import sage_obs
from sage_agent.llm.config import BreakerConfig
from sage_obs.conventions import BREAKER_STATE

_SLOTS: Final = 10
"""Into so many parts a window is divided; it is one part too long at most."""


class State(enum.Enum):
    """What a breaker does; the values are those of the metric."""

    CLOSED = 0.0
    HALF_OPEN = 0.5
    OPEN = 1.0


@dataclass(slots=True)
class _Slot:
    number: int
    calls: int = 0
    failures: int = 0


class _Window:
    """How many calls were made and failed in the last so many seconds, in memory that does not grow with them."""

    def __init__(self, seconds: float) -> None:
        self._width = seconds / _SLOTS
        self._slots: deque[_Slot] = deque()

    def add(self, now: float, *, failed: bool) -> tuple[int, int]:
        """Count a call; returns the calls and the failures in the window."""
        number = int(now / self._width)
        while self._slots and self._slots[0].number <= number - _SLOTS:
            self._slots.popleft()
        if not self._slots or self._slots[-1].number != number:
            self._slots.append(_Slot(number))
        self._slots[-1].calls += 1
        self._slots[-1].failures += failed
        return sum(slot.calls for slot in self._slots), sum(slot.failures for slot in self._slots)


class Breaker:
    """Guards one target; `clock` is in seconds. It belongs to one event loop; other threads may read it.

    A call is admitted with a number and recorded under it: one that began before the state last changed says nothing of the present.
    """

    def __init__(self, target: str, config: BreakerConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.target = target
        self.state = State.CLOSED
        self._config = config
        self._clock = clock
        self._era = 0
        self._opened = 0.0
        self._window = _Window(config.window)

    @property
    def wait(self) -> float:
        """Seconds until a call may be made to see whether the target is back; 0 where none is held back or one is under way."""
        return max(0.0, self._opened + self._config.cooldown - self._clock()) if self.state is State.OPEN else 0.0

    def admit(self) -> int | None:
        """Let a call through: the number it is recorded under. None where calls are held back."""
        if self.state is State.OPEN and not self.wait:
            self._become(State.HALF_OPEN)
            return self._era
        return self._era if self.state is State.CLOSED else None

    def record(self, era: int, *, failed: bool) -> None:
        """How an admitted call went."""
        if era != self._era or not self._config.enabled:
            return
        if self.state is State.HALF_OPEN:
            self._open() if failed else self._become(State.CLOSED)
            return
        calls, failures = self._window.add(self._clock(), failed=failed)
        if calls >= self._config.min_calls and failures >= calls * self._config.failure_share:
            self._open()

    def release(self, era: int) -> None:
        """An admitted call ended without saying anything of the target; the next one may be the one to see."""
        if era == self._era and self.state is State.HALF_OPEN:
            self._become(State.OPEN)

    def expose(self) -> None:
        """Put the state on /metrics."""
        sage_obs.series(BREAKER_STATE, self.target).set(self.state.value)

    def _open(self) -> None:
        self._opened = self._clock()
        self._become(State.OPEN)

    def _become(self, state: State) -> None:
        self.state = state
        self._era += 1
        self._window = _Window(self._config.window)
        self.expose()
