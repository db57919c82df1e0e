"""How much processor time each thread has used."""

from __future__ import annotations

import threading
import time
from typing import Final

_PER_THREAD: Final = 4
_SCHEDULED: Final = 2


def clock_of(native: int) -> int:
    """The clock of a thread by the number the kernel knows it by; reading that of one that has ended is an error and not a crash.

    This is how Linux numbers them (`CPUCLOCK_PERTHREAD_MASK` in linux/posix-timers.h); `pthread_getcpuclockid` reads the memory of the
    thread, which may be gone.
    """
    return (~native << 3) | _PER_THREAD | _SCHEDULED


def thread_times() -> dict[int, tuple[int, str, int]]:
    """Number, name and nanoseconds of processor time of every thread that Python knows of, by its identifier."""
    read, found = time.clock_gettime_ns, {}
    for ident, thread in list(threading._active.items()):  # type: ignore[attr-defined] # noqa: SLF001 - `enumerate` takes a lock
        native = thread.native_id
        if native is not None:
            try:
                found[ident] = (native, thread.name, read(clock_of(native)))
            except OSError:  # it has ended a moment ago
                continue
    return found
