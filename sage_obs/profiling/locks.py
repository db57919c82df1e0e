"""Locks that say who waited for them: `threading.Lock`, `threading.RLock` and `asyncio.Lock`, where that is asked for.

Locks made before `install` stay as they are. One that is free costs a call more; only one that is not free is timed.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from sage_obs.profiling.contention import Contentions
from sage_obs.profiling.stacks import key_of

_LOCK: Final = threading.Lock
_RLOCK: Final = threading.RLock


class _Wrapped:
    """A lock that is timed when it has to be waited for."""

    __slots__ = ("__weakref__", "_label", "_lock", "_waited")

    def __init__(self, lock: Any, waited: Callable[[str, int, Any], None], label: str) -> None:
        self._lock = lock
        self._waited = waited
        self._label = label

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: FBT001, FBT002 - threading's own signature
        if self._lock.acquire(False):
            return True
        if not blocking:
            return bool(self._lock.acquire(False, timeout))
        began = time.perf_counter_ns()
        try:
            return bool(self._lock.acquire(True, timeout))
        finally:
            self._waited(self._label, time.perf_counter_ns() - began, sys._getframe(1))  # noqa: SLF001 - who waited

    def __enter__(self) -> bool:
        if self._lock.acquire(False):
            return True
        began = time.perf_counter_ns()
        try:
            return bool(self._lock.acquire())
        finally:
            self._waited(self._label, time.perf_counter_ns() - began, sys._getframe(1))  # noqa: SLF001 - who waited

    def __exit__(self, *args: object) -> None:
        self._lock.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)

    def __repr__(self) -> str:
        return repr(self._lock)


class Locks:
    """The profile of locks; `install` replaces the factories, `uninstall` puts them back. Locks made meanwhile go on, and say nothing."""

    def __init__(self) -> None:
        self.found = Contentions("source: locks made since profiling began, by who waited for them")
        self._on = False
        self._busy = threading.local()
        self._acquire = asyncio.Lock.acquire

    def install(self) -> None:
        """Make locks that say who waited."""
        self._on = True
        threading.Lock = self._make_lock  # type: ignore[assignment]
        threading.RLock = self._make_rlock  # type: ignore[assignment]
        waited, original = self._waited, self._acquire

        async def acquire(lock: asyncio.Lock) -> Any:
            if not lock.locked():
                return await original(lock)
            began, frame = time.perf_counter_ns(), sys._getframe(1)  # noqa: SLF001 - who waits, as it is now: later the calls are others
            key = key_of(frame)
            try:
                return await original(lock)
            finally:
                waited("asyncio.Lock", time.perf_counter_ns() - began, None, key)

        asyncio.Lock.acquire = acquire  # type: ignore[method-assign,assignment]

    def uninstall(self) -> None:
        """Put back what was there, where it is still ours."""
        self._on = False
        if threading.Lock == self._make_lock:
            threading.Lock = _LOCK
        if threading.RLock == self._make_rlock:
            threading.RLock = _RLOCK
        if asyncio.Lock.acquire.__module__ == __name__:
            asyncio.Lock.acquire = self._acquire  # type: ignore[method-assign]

    def restart_after_fork(self) -> None:
        """Count from nothing in a forked child."""
        self.found.restart()
        self._busy = threading.local()

    def _make_lock(self) -> Any:
        return _Wrapped(_LOCK(), self._waited, "threading.Lock")

    def _make_rlock(self) -> Any:
        return _Wrapped(_RLOCK(), self._waited, "threading.RLock")

    def _waited(self, label: str, nanoseconds: int, frame: Any, key: Any = None) -> None:
        """A lock of the profiler's own must not be counted while one is counted."""
        if not self._on or getattr(self._busy, "on", False):
            return
        self._busy.on = True
        try:
            self.found.add(key_of(frame) if key is None else key, (("lock", label),), 1, nanoseconds)
        finally:
            self._busy.on = False
