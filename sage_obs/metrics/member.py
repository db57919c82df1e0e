"""One process's part in the metrics of a service that runs as several, and whether that process still runs."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_STATE, _PARENT, _STARTED = 0, 1, 19
"""Where they stand after the command's name in /proc/PID/stat (proc_pid_stat(5), fields 3, 4 and 22)."""
_GONE: Final = (b"Z", b"X")


def started_at(pid: int) -> int | None:
    """When a process started, in clock ticks since the system did; None where it has ended or never was."""
    fields = _fields(pid)
    return None if fields is None or fields[_STATE] in _GONE else int(fields[_STARTED])


def parent_of(pid: int) -> int | None:
    """The process that started another; None where that is gone."""
    fields = _fields(pid)
    return None if fields is None else int(fields[_PARENT])


def _fields(pid: int) -> list[bytes] | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    except OSError:
        return None
    return fields if len(fields) > _STARTED else None


@dataclass(frozen=True, slots=True, order=True)
class Running:
    """A process: its start tells it from a later one of the same id."""

    started: int
    pid: int

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The process of this id as it runs now, if it does."""
        started = started_at(pid)
        return None if started is None else cls(started, pid)

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return started_at(self.pid) == self.started


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """A process's part, by a number that it has used for no other before; in the order they began."""

    process: Running
    number: int

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """The member whose files have this name, None if it is nobody's."""
        parts = name.split("-")
        if len(parts) != 3 or not all(part.isdecimal() for part in parts):  # noqa: PLR2004 - pid, start and number
            return None
        pid, started, number = map(int, parts)
        return cls(Running(started, pid), number)

    @classmethod
    def new(cls, process: Running) -> Self:
        """Another part of this process, which may have had one before that is in the archive by now."""
        return cls(process, time.monotonic_ns())

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.process.pid}-{self.process.started}-{self.number}"


def here() -> Running | None:
    """This process, where the system tells when it started."""
    return Running.of(os.getpid())
