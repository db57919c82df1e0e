"""A thread that calls something many times a second, beside a busy event loop too."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

_SWITCH_SECONDS: Final = 0.0005
"""A thread that waits for its turn asks for it after the switch interval, and an event loop lets go of the turn more often than every 5 ms,
so that it never comes to asking: with the usual interval a sampler gets a tenth of its looks, most of them at the loop's own select."""


class Ticker:
    """Calls `tick(None)` every `period` seconds on average until it is closed, at moments that no program keeps step with."""

    def __init__(self, tick: Callable[[None], None], period: float, *, name: str) -> None:
        self._tick = tick
        self._period = period
        self._closed = threading.Event()
        self._random = random.Random().random  # noqa: S311 - not the application's numbers, which it may have seeded
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(min(self._interval, _SWITCH_SECONDS))
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        due = time.monotonic()
        while not self._closed.wait(max(0.0, due - time.monotonic())):
            self._tick(None)
            due = max(due + self._period * (0.5 + self._random()), time.monotonic())

    def close(self) -> None:
        """Tick no more."""
        self.abandon()
        self._closed.set()
        self._thread.join()

    def abandon(self) -> None:
        """Put the switch interval back; in a forked child there is no thread to end."""
        sys.setswitchinterval(self._interval)
