"""What the garbage collector takes from everybody else."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

from sage_obs.metrics.cells import HistogramCell


class Pauses:
    """Times each collection, by generation. It takes no lock and makes nothing that is collected: it runs inside the collector."""

    def __init__(self, cells: Sequence[HistogramCell], *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._cells = cells
        self._clock = clock
        self._began = 0.0
        self._callback = self._collected  # a bound method is made anew each time it is asked for, and this one is looked for at the end

    def start(self) -> None:
        """Listen to the collector."""
        gc.callbacks.append(self._callback)

    def stop(self) -> None:
        """Listen no more."""
        if self._callback in gc.callbacks:
            gc.callbacks.remove(self._callback)

    def _collected(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._began = self._clock()
        elif self._began:
            self._cells[min(info["generation"], len(self._cells) - 1)].observe(self._clock() - self._began)
            self._began = 0.0
