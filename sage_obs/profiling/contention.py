"""How often and how long something was waited for, by where: what the profiles of blocked loops and of locks are made of."""

from __future__ import annotations

import threading
import time
from typing import Final

from sage_obs.profiling.profile import Frame, Kind, Labels, Profile, folded
from sage_obs.profiling.stacks import Key, stack_of

KINDS: Final = (Kind("contentions", "count"), Kind("delay", "nanoseconds"))
_MOST_PLACES: Final = 10_000
_OTHER: Final = Frame("(places beyond the limit)")


class Contentions:
    """Counts since it was made; bounded."""

    def __init__(self, source: str, *, limit: int = _MOST_PLACES) -> None:
        self._source = source
        self._limit = limit
        self.restart()

    def restart(self) -> None:
        """Begin at nothing, in a forked child too."""
        self._lock = threading.Lock()
        self._places: dict[tuple[Key, Labels], list[int]] = {}
        self._beyond = [0, 0]

    def add(self, key: Key, labels: Labels, times: int, nanoseconds: int) -> None:
        """So much was waited for here."""
        with self._lock:
            place = self._places.get((key, labels))
            if place is None:
                place = self._beyond
                if len(self._places) < self._limit:
                    place = self._places[key, labels] = [0, 0]
            place[0] += times
            place[1] += nanoseconds

    def profile(self) -> Profile:
        """All that was counted."""
        with self._lock:
            found = [(key, labels, (times, spent)) for (key, labels), (times, spent) in self._places.items()]
            beyond = (self._beyond[0], self._beyond[1])
        rows = [(stack_of(key), values, labels) for key, labels, values in found]
        samples = folded([*rows, ((_OTHER,), beyond, ())])
        return Profile(KINDS, samples, "delay", KINDS[0], 1, time.time_ns(), comments=(self._source,))
