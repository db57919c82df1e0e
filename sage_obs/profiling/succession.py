"""Waiting for a port that a process of the same service has, and may leave."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from sage_obs.metrics.active import internal_error

_SECONDS: Final = 1.0


class Succession:
    """Calls `take` every second until that has the port."""

    def __init__(self, take: Callable[[], bool]) -> None:
        self._take = take
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="sage-obs-profiling-turn", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            while not self._closed.wait(_SECONDS):
                if self._take():
                    return
        except Exception as exc:  # noqa: BLE001 - the process can be asked where it is
            internal_error("profiling", exc)

    def close(self) -> None:
        """Wait no more."""
        self._closed.set()
        self._thread.join()
