"""Everything in a process that profiles are taken from, started and stopped together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from sage_obs.profiling import tasks
from sage_obs.profiling.heap import Heap
from sage_obs.profiling.locks import Locks
from sage_obs.profiling.parameters import DEFAULT_SECONDS, Parameters
from sage_obs.profiling.profile import Profile, difference, filtered
from sage_obs.profiling.sampler import Sampler
from sage_obs.profiling.stalls import Stalls
from sage_obs.profiling.windows import Mode

_STEP: Final = 0.1
Gone = Callable[[], bool]


class Sources:
    """The sampler, the watch over event loops, the locks where they are wanted, and the heap."""

    def __init__(self, *, locks: bool) -> None:
        self.stalls = Stalls()
        self.sampler = Sampler(self.stalls.idents)
        self.locks = Locks()
        self.heap = Heap()
        self._wraps = locks
        self._closed = False

    def start(self) -> str:
        """Begin to watch; the words for what is taken from where."""
        self.sampler.arm()
        self.stalls.start()
        if self._wraps:
            self.locks.install()
        return self.sampler.source("cpu")

    def stop(self) -> None:
        """End every window, and put everything back."""
        self._closed = True
        self.sampler.disarm()
        self.stalls.stop()
        self.locks.uninstall()

    def restart_after_fork(self) -> None:
        """Begin anew in a forked child."""
        self.sampler.restart_after_fork()
        self.stalls.restart_after_fork()
        self.locks.restart_after_fork()
        self.heap.restart()

    def take(self, name: str, asked: Parameters, gone: Gone) -> Profile | None:
        """The profile of that name, None where nobody waits for it any more. Raises KeyError for a name there is not, and `heap.Busy`."""
        if name == "profile":
            return self._sampled("wall" if asked.mode == "wall" else "cpu", asked, gone)
        if name in {"heap", "allocs"}:
            if asked.seconds is None:
                return self.heap.take(collect=asked.collect)
            return self.heap.over(asked.seconds, lambda seconds: self._wait(seconds, gone), collect=asked.collect)
        take = {"goroutine": tasks.profile, "threadcreate": tasks.created, "block": self.stalls.profile, "mutex": self._contended}[name]
        if asked.seconds is None:
            return take()
        before, began = take(), time.monotonic()
        while (left := asked.seconds - (time.monotonic() - began)) > 0:
            if not self._wait(min(_STEP, left), gone):
                return None
        return difference(take(), before)

    def _contended(self) -> Profile:
        found = self.locks.found.profile()
        return found if self._wraps else replace(found, comments=("source: none; SAGE_PROFILING_LOCKS=true makes locks say who waited",))

    def _wait(self, seconds: float, gone: Gone) -> bool:
        time.sleep(seconds)
        return not self._closed and not gone()

    def _sampled(self, mode: Mode, asked: Parameters, gone: Gone) -> Profile | None:
        sampler = self.sampler
        with sampler.window(mode, asked.hz) as window:
            if not sampler.watch(window, asked.seconds or DEFAULT_SECONDS, gone):
                return None
        profile = window.profile((sampler.source(mode),))
        wanted = {("thread", asked.thread), ("task", asked.task)} - {("thread", ""), ("task", "")}
        return filtered(profile, lambda sample: wanted <= set(sample.labels)) if wanted else profile
