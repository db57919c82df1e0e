"""The runtime's metrics as a component of the layer."""

from __future__ import annotations

import threading

from sage_obs import loops
from sage_obs.component import Unbuffered
from sage_obs.conventions import EVENT_LOOP_LAG, GC_PAUSE, MEMORY_LIMIT, RUNTIME_TASKS, RUNTIME_THREADS
from sage_obs.metrics.store import Store
from sage_obs.runtime.heartbeats import Heartbeats
from sage_obs.runtime.memory import memory_limit
from sage_obs.runtime.pauses import Pauses

_GENERATIONS = ("0", "1", "2")


class RuntimeComponent(Unbuffered):
    """Watches the event loops that work is seen on, and the collector; what has no event of its own is read by each scrape."""

    name = "runtime"

    def __init__(self, store: Store) -> None:
        self._store = store
        self._heartbeats = Heartbeats(store.histogram(EVENT_LOOP_LAG))
        self._pauses = Pauses([store.histogram(GC_PAUSE, generation) for generation in _GENERATIONS])

    def start(self) -> str:
        """Watch from now on, the loop that runs here and the one that was seen before included."""
        self._pauses.start()
        loops.follow(self._heartbeats.watch)
        loops.seen_here()
        return "event loops, threads, collector and memory"

    def refresh(self) -> None:
        """Bring the gauges up to date."""
        store = self._store
        store.cell(RUNTIME_THREADS).set(threading.active_count())
        store.cell(RUNTIME_TASKS).set(self._heartbeats.tasks())
        limit = memory_limit()
        if limit is not None:
            store.cell(MEMORY_LIMIT).set(limit)
        else:
            store.keep(MEMORY_LIMIT, frozenset())

    def stop(self, timeout: float) -> None:
        """Watch no more."""
        del timeout
        loops.unfollow(self._heartbeats.watch)
        self._heartbeats.stop()
        self._pauses.stop()
