"""A span of time in which samples are counted, and the profile that comes of it."""

from __future__ import annotations

import threading
import time
from typing import Final, Literal

from sage_obs.profiling.profile import Frame, Kind, Labels, Profile, Stack, Values, folded
from sage_obs.profiling.stacks import Key, stack_of

Mode = Literal["cpu", "wall"]
NATIVE: Final = Frame("(threads of native code, or that have ended)")
_OTHER: Final = Frame("(stacks beyond the limit)")
_MOST_STACKS: Final = 20_000
_SECOND: Final = 1_000_000_000


class Spot:
    """Thread, task and stack: where time is spent. Code is known by its identity, as it takes long to hash."""

    __slots__ = ("_hash", "_same", "key", "task", "thread")

    def __init__(self, thread: str, task: str, key: Key) -> None:
        self.thread = thread
        self.task = task
        self.key = key  # which keeps the code, and so its identity
        self._same = thread, task, tuple(map(id, key[0::2])), key[1::2]
        self._hash = hash(self._same)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Spot) and self._same == other._same)


class Window:
    """Counts what the sampler sees between `open` and `close`. What is added comes from a signal handler: no lock is taken here."""

    def __init__(self, mode: Mode, hz: int, *, limit: int = _MOST_STACKS) -> None:
        self.mode = mode
        self.hz = hz
        self.ticks = 0
        self.gone = threading.Event()
        self._limit = limit
        self._spent: dict[Spot, list[int]] = {}
        self._elsewhere = self._beyond = 0
        self._began, self._started = time.time_ns(), time.monotonic_ns()
        self._ended = 0

    def add(self, spot: Spot, nanoseconds: int) -> None:
        """This much time was spent here."""
        cell = self._spent.get(spot)
        if cell is not None:
            cell[0] += nanoseconds
        elif len(self._spent) < self._limit:
            self._spent[spot] = [nanoseconds]
        else:
            self._beyond += nanoseconds

    def add_elsewhere(self, nanoseconds: int) -> None:
        """This much was spent where no stack is to be seen."""
        self._elsewhere += nanoseconds

    def end(self) -> None:
        """No more comes."""
        self._ended = time.monotonic_ns()

    def profile(self, comments: tuple[str, ...] = ()) -> Profile:
        """Samples and nanoseconds; a sample is a period's worth of time, so that the two columns say the same."""
        period = _SECOND // self.hz
        found = [(spot, spent[0]) for spot, spent in list(self._spent.items())]
        rows = [(stack_of(spot.key), _values(spent, period), _labels(spot.thread, spot.task)) for spot, spent in found]
        rows += [(stack, _values(spent, period), ()) for stack, spent in self._unseen() if spent >= period]
        kind = Kind(self.mode, "nanoseconds")
        kinds = (Kind("samples", "count"), kind)
        duration = (self._ended or time.monotonic_ns()) - self._started
        comments = (*comments, self._count(duration))
        return Profile(kinds, folded(rows), self.mode, kind, period, self._began, duration, comments)

    def _unseen(self) -> tuple[tuple[Stack, int], ...]:
        return ((NATIVE,), self._elsewhere), ((_OTHER,), self._beyond)

    def _count(self, duration: int) -> str:
        return f"{self.ticks} looks in {duration / _SECOND:.1f} s, weighed by {'processor' if self.mode == 'cpu' else 'elapsed'} time"


def _values(nanoseconds: int, period: int) -> Values:
    return round(nanoseconds / period), nanoseconds


def _labels(thread: str, task: str) -> Labels:
    return (("task", task), ("thread", thread)) if task else (("thread", thread),)
