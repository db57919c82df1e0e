"""What holds event loops up: a thread that looks at the stack of a loop's thread while the loop is late."""

from __future__ import annotations

import asyncio
import threading
import time
from contextvars import Context
from pathlib import PurePath
from typing import Final
from weakref import WeakKeyDictionary

from sage_obs import loops
from sage_obs.metrics.active import internal_error
from sage_obs.profiling.contention import Contentions
from sage_obs.profiling.profile import Profile
from sage_obs.profiling.stacks import key_of, threads

BEAT_SECONDS: Final = 0.1
LATE_SECONDS: Final = 0.05
_LOOK_SECONDS: Final = 0.025
OWN: Final = "sage-obs-stalls"
_SELECT: Final = ("selectors.py", "select")
"""Where asyncio's own loop waits for work: one that is late there was not run by the system, and no code of the application held it."""


class _Beat:
    """When a loop is to come by, and which thread it runs in."""

    __slots__ = ("due", "ident", "stalled_since")

    def __init__(self) -> None:
        self.due = 0.0
        self.ident = 0
        self.stalled_since = 0.0


class Stalls:
    """Watches the loops it hears of. A beat is a timer on the loop, ten a second.

    The thread looks when a beat would be late, and 40 times a second while one is.
    """

    def __init__(self) -> None:
        self.found = Contentions(f"source: event loops that were more than {LATE_SECONDS * 1000:.0f} ms late, since they are watched")
        self._beats: WeakKeyDictionary[asyncio.AbstractEventLoop, _Beat] = WeakKeyDictionary()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watch every loop that work is done on from now on."""
        loops.follow(self.watch)
        loops.seen_here()

    def stop(self) -> None:
        """Watch no more."""
        loops.unfollow(self.watch)
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def restart_after_fork(self) -> None:
        """The thread stayed in the parent, and so do the parent's stalls; a loop that goes on here is found again."""
        self.found.restart()
        beats = list(self._beats)
        self._beats = WeakKeyDictionary()
        self._closed, self._thread = threading.Event(), None
        for loop in beats:
            self.watch(loop)

    def profile(self) -> Profile:
        """What held the loops up so far."""
        return self.found.profile()

    def idents(self) -> dict[asyncio.AbstractEventLoop, int]:
        """The thread that each loop was last seen in."""
        return {loop: beat.ident for loop, beat in list(self._beats.items()) if beat.ident}

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch this loop too; from any thread."""
        if loop in self._beats or self._closed.is_set():
            return
        try:
            beat = self._beats[loop] = _Beat()
            loop.call_soon_threadsafe(self._come_by, loop, beat, context=Context())
        except Exception as exc:  # noqa: BLE001 - the loop may be closed by now, and is anybody's
            if not loop.is_closed():
                internal_error("profiling", exc)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=OWN, daemon=True)
            self._thread.start()

    def _come_by(self, loop: asyncio.AbstractEventLoop, beat: _Beat) -> None:
        if self._closed.is_set():
            return
        beat.ident = threading.get_ident()
        beat.due = time.monotonic() + BEAT_SECONDS
        loop.call_later(BEAT_SECONDS, self._come_by, loop, beat, context=Context())

    def _work(self) -> None:
        wait = _LOOK_SECONDS
        while not self._closed.wait(wait):
            try:
                beats = list(self._beats.items())
                wait = min((self._look(loop, beat, time.monotonic()) for loop, beat in beats), default=BEAT_SECONDS)
            except Exception as exc:  # noqa: BLE001 - the next look may go well
                internal_error("profiling", exc)

    def _look(self, loop: asyncio.AbstractEventLoop, beat: _Beat, now: float) -> float:
        """Give the time since the last look, or since the beat was due, to where the loop's thread stands; seconds until the next look."""
        late = now - beat.due
        if not beat.due or not loop.is_running():
            return BEAT_SECONDS
        if late < LATE_SECONDS:
            beat.stalled_since = 0.0
            return min(max(LATE_SECONDS - late, _LOOK_SECONDS), BEAT_SECONDS + LATE_SECONDS)
        began = beat.stalled_since < beat.due
        since = beat.due if began else beat.stalled_since
        beat.stalled_since = now
        frame = threads().get(beat.ident)
        if frame is not None and (PurePath(frame.f_code.co_filename).name, frame.f_code.co_name) != _SELECT:
            self.found.add(key_of(frame), (), int(began), int((now - since) * 1e9))
        return _LOOK_SECONDS
