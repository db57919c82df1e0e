"""The numbers of one process where others can read them: a memory-mapped file of doubles, and an index that says what each is.

A write is a plain store into memory, which outlives the process however it ends. The index is only appended to; a line that a dying
process did not finish is nobody's, as nothing was counted there yet. No locks, for the reason given at `sage_obs.metrics.store.Family`.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from sage_obs.metrics.member import Member

Labels = tuple[str, ...]
_DOUBLE: Final = 8
_SEGMENT: Final = 8192
"""Doubles mapped at once: 64 KiB, the largest page a file can be mapped by on the systems we run on."""
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_CLOSED: Final = 1.0
"""What the first double of a file says when its process has stopped writing to it."""


class CellFile:
    """What this process writes, under a lock that ends with it.

    Files are opened when they are needed, and only the lock's is kept open: a process that becomes a daemon closes whatever is open, and
    the numbers of its descriptors are soon those of other files.
    Raises OSError where there is no room: that is taken before anything is written to it.
    """

    def __init__(self, folder: Path, member: Member) -> None:
        self.member = member
        self._index, self._cells = folder / f"{member.name}.index", folder / f"{member.name}.cells"
        os.close(os.open(self._index, _NEW, 0o600))
        self._held = os.open(self._cells, _NEW, 0o600)
        self._identity = _identity(self._held)
        fcntl.flock(self._held, fcntl.LOCK_SH)
        self._places: dict[tuple[str, Labels], memoryview[float]] = {}
        self._segments: dict[int, memoryview[float]] = {}
        self._next = 1
        self._broken = False

    def place(self, name: str, labels: Labels, bounds: tuple[float, ...], size: int) -> memoryview[float]:
        """Room for the `size` numbers of a child; the same child has the same room again."""
        if (known := self._places.get((name, labels))) is not None:
            return known
        at = self._claim(size)
        start = at % _SEGMENT
        place = self._segment(at // _SEGMENT)[start : start + size]
        self._append(orjson.dumps((name, labels, at, bounds)) + b"\n")
        return self._places.setdefault((name, labels), place)

    def _claim(self, size: int) -> int:
        """Doubles that nobody else has and that one mapping holds."""
        while True:
            at = self._next
            self._next += size  # no call since the line above: no other thread was here
            if at // _SEGMENT == (at + size - 1) // _SEGMENT:
                return at

    def _segment(self, number: int) -> memoryview[float]:
        found = self._segments.get(number)
        return self._segments.setdefault(number, self._map(number)) if found is None else found

    def _map(self, number: int) -> memoryview[float]:
        """Map more of the file, whose blocks are there from now on: a full disk is an error here and not a signal later."""
        length = _SEGMENT * _DOUBLE
        descriptor = os.open(self._cells, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.posix_fallocate(descriptor, number * length, length)
            return memoryview(mmap.mmap(descriptor, length, offset=number * length)).cast("d")
        finally:
            os.close(descriptor)

    def _append(self, line: bytes) -> None:
        if not self._broken:
            descriptor = os.open(self._index, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                self._broken = os.write(descriptor, line) != len(line)
            finally:
                os.close(descriptor)
        if self._broken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """This process writes no more; what it has counted stays counted."""
        self._segment(0)[0] = _CLOSED
        self.abandon()

    def abandon(self) -> None:
        """Let go of the file, as a forked child of its owner. A process that has become a daemon may have closed it already."""
        with suppress(OSError):
            if _identity(self._held) == self._identity:
                os.close(self._held)


def _identity(descriptor: int) -> tuple[int, int]:
    """Which file a descriptor is of."""
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def is_held(cells: Path) -> bool:
    """Whether the process that writes to this file lives, in whichever namespace."""
    descriptor = os.open(cells, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@dataclass(frozen=True, slots=True)
class Series:
    """What the index says of one child: `at` is where its numbers begin."""

    name: str
    labels: Labels
    at: int
    bounds: tuple[float, ...]

    @property
    def size(self) -> int:
        """Doubles it has: one, or a histogram's buckets, the one over all bounds, and the sum."""
        return len(self.bounds) + 2 if self.bounds else 1


@dataclass(slots=True)
class CellReader:
    """Any process's files."""

    folder: Path
    member: Member
    _offset: int = 0

    def read(self) -> tuple[list[Series], Sequence[float]]:
        """The children that are new since the last reading, and every double as it is now, theirs included.

        Raises FileNotFoundError where the files were removed.
        """
        with (self.folder / f"{self.member.name}.index").open("rb") as index:
            index.seek(self._offset)
            whole, end, _ = index.read().rpartition(b"\n")
        with (self.folder / f"{self.member.name}.cells").open("rb") as cells:
            values = _doubles(cells.fileno())
        self._offset += len(whole) + len(end)
        return [_series(line) for line in whole.splitlines()], values

    @staticmethod
    def closed(values: Sequence[float]) -> bool:
        """Whether its process has said that it writes no more."""
        return bool(values) and values[0] == _CLOSED


def _series(line: bytes) -> Series:
    name, labels, at, bounds = orjson.loads(line)
    return Series(name, tuple(labels), at, tuple(bounds))


def _doubles(descriptor: int) -> Sequence[float]:
    """Read from a mapping, double by double: `read` copies bytes, and might take half of one that is being written."""
    length = os.fstat(descriptor).st_size
    if length < _SEGMENT * _DOUBLE:
        return ()
    with mmap.mmap(descriptor, length, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as raw, raw.cast("d") as doubles:
        return doubles.tolist()
