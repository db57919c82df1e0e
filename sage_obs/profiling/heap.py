"""What takes memory: by the line that allocated it, from tracemalloc, or by type, from the garbage collector."""

from __future__ import annotations

import gc
import os
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sage_obs.profiling.profile import Frame, Kind, Profile, Stack, Values, difference, folded

KINDS: Final = (Kind("inuse_objects", "count"), Kind("inuse_space", "bytes"))
FRAMES: Final = 16
MOST_TRACED_BYTES: Final = 64 * 1024 * 1024
"""Of tracemalloc's own memory, which is about a hundred bytes a block: some half a million blocks, which take seconds to add up."""
_MOST_TYPES: Final = 5000
_OTHER_TYPES: Final = Frame("(types beyond the limit)")
_REST: Final = Frame("(resident memory that the garbage collector does not track: texts, numbers, buffers, native code, free space)")
_HEAP_TYPE: Final = 1 << 9
"""Py_TPFLAGS_HEAPTYPE: a class that is made while the program runs. What it says of its own size is not asked, but its nearest base is
that is not such a class, of which each has one."""
_HEADER: Final = 16
"""The collector's own bytes before each object."""
_NAME: Final = 200
_STATM: Final = Path("/proc/self/statm")
_TRACED: Final = "source: tracemalloc"
_TYPES: Final = "source: objects the garbage collector tracks, by type; with seconds=N it is what is allocated meanwhile, by line"


class Busy(Exception):  # noqa: N818 - a state and no fault
    """Somebody else takes a heap profile; it has the seconds that may take."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"another heap profile is being made, for up to {seconds:.0f} s more; try again then")
        self.seconds = seconds


class Heap:
    """One profile at a time: each of them costs the whole process."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Nobody takes one, in a forked child too."""
        self._lock = threading.Lock()
        self._until = 0.0

    def take(self, *, collect: bool = False) -> Profile:
        """As it is now: by line where the application traces its memory, else by type. Raises Busy."""
        with _Turn(self, 1.0):
            if collect:
                gc.collect()
            return _traced() if tracemalloc.is_tracing() else by_type()

    def over(self, seconds: float, wait: Callable[[float], bool], *, collect: bool = False) -> Profile | None:
        """What is allocated within so many seconds and still there, by line; None where `wait` says that nobody wants it. Raises Busy."""
        with _Turn(self, seconds):
            ours = not tracemalloc.is_tracing()
            if ours:
                tracemalloc.start(FRAMES)
            try:
                before = _traced() if not ours else None
                began = time.monotonic()
                complete = self._wait(seconds, wait)
                if complete is None:
                    return None
                if collect:
                    gc.collect()
                return _delta(before, complete=complete, seconds=time.monotonic() - began)
            finally:
                if ours:
                    tracemalloc.stop()

    def _wait(self, seconds: float, wait: Callable[[float], bool]) -> bool | None:
        """Whether it went on to the end: tracing that takes too much memory is ended early. None where nobody wants it any more."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not wait(min(0.1, left)):
                return None
            if tracemalloc.get_tracemalloc_memory() > MOST_TRACED_BYTES:
                return False
        return True

    def enter(self, seconds: float) -> None:
        """Take the turn, for about so long. Raises Busy."""
        if not self._lock.acquire(blocking=False):
            raise Busy(max(1.0, self._until - time.monotonic()))
        self._until = time.monotonic() + seconds

    def leave(self) -> None:
        """Let the next one."""
        self._lock.release()


class _Turn:
    def __init__(self, heap: Heap, seconds: float) -> None:
        self._heap, self._seconds = heap, seconds

    def __enter__(self) -> None:
        self._heap.enter(self._seconds)

    def __exit__(self, *args: object) -> None:
        self._heap.leave()


def _delta(before: Profile | None, *, complete: bool, seconds: float) -> Profile:
    after = _traced()
    if before is not None:
        after = difference(after, before)
    cut = () if complete else (f"ended early, as tracing took more than {MOST_TRACED_BYTES >> 20} MiB",)
    comments = (f"{_TRACED}; allocated within {seconds:.1f} s and still there", *cut)
    return Profile(KINDS, after.samples, "inuse_space", KINDS[1], 1, time.time_ns(), int(seconds * 1e9), comments)


def _traced() -> Profile:
    found: dict[Any, list[int]] = {}
    for _, size, frames, *_ in tracemalloc.take_snapshot().traces._traces:  # type: ignore[attr-defined] # noqa: SLF001 - its objects take ten times as long
        entry = found.setdefault(frames, [0, 0])
        entry[0] += 1
        entry[1] += size
    names: dict[tuple[str, int], Frame] = {}
    rows = [(_stack(frames, names), (count, size), ()) for frames, (count, size) in found.items()]
    return Profile(KINDS, folded(rows), "inuse_space", KINDS[1], 1, time.time_ns(), comments=(_TRACED,))


def _stack(frames: Any, names: dict[tuple[str, int], Frame]) -> Stack:
    return tuple(names.setdefault(place, Frame(f"{os.path.basename(place[0])}:{place[1]}", place[0], 0, place[1])) for place in frames)  # noqa: PTH119 - of very many


def by_type() -> Profile:
    """Objects the collector tracks by type, and what is resident besides, so that the sum is what the process takes."""
    found: dict[int, _Type] = {}
    for item in gc.get_objects():
        kind = type(item)
        known = found.get(id(kind))  # not by the type itself: what it is hashed by may be the application's
        if known is None:
            known = found[id(kind)] = _Type(kind)
        known.count += 1
        known.size += known.sizeof(item) + _HEADER
    rows: list[tuple[Stack, Values, tuple[()]]] = []
    for one in sorted(found.values(), key=lambda one: -one.size):
        rows.append(((one.frame() if len(rows) < _MOST_TYPES else _OTHER_TYPES,), (one.count, one.size), ()))
    if (rest := _resident() - sum(one.size for one in found.values())) > 0:
        rows.append(((_REST,), (0, rest), ()))
    return Profile(KINDS, folded(rows), "inuse_space", KINDS[1], 1, time.time_ns(), comments=(_TYPES,))


class _Type:
    """The objects of one type. Nothing of the application's own is run: its classes are read past whatever they define."""

    __slots__ = ("count", "kind", "size", "sizeof")

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.count = self.size = 0
        bases = type.__dict__["__mro__"].__get__(kind)
        known = next(base for base in bases if not type.__dict__["__flags__"].__get__(base) & _HEAP_TYPE)
        self.sizeof: Callable[[Any], int] = known.__sizeof__

    def frame(self) -> Frame:
        """Module and name."""
        module, name = (type.__dict__[one].__get__(self.kind) for one in ("__module__", "__qualname__"))
        return Frame(f"{module}.{name}"[:_NAME] if type(module) is type(name) is str else "(a type without a name)")


def _resident() -> int:
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
