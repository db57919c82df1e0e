"""The memory the process may have, by its control group."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

_UNLIMITED: Final = 1 << 60
"""Version 1 says "none" as a number near 2^63, rounded to pages."""


def memory_limit(root: Path = Path("/")) -> int | None:
    """The least limit of the group and those above it, in bytes; None for no limit, or where nothing can be read (cgroups(7))."""
    limits = [limit for file in _files(root) if (limit := _read(file)) is not None]
    return min(limits, default=None)


def _files(root: Path) -> Iterator[Path]:
    """The files that hold limits. Inside a container the group's path may be that of the host, and only the top exists."""
    mount = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, path = line.split(":", 2)
        if number == "0":
            yield from (mount / folder / "memory.max" for folder in _upwards(path))
        elif "memory" in controllers.split(","):
            yield from (mount / "memory" / folder / "memory.limit_in_bytes" for folder in _upwards(path))


def _lines(file: Path) -> list[str]:
    try:
        return [line for line in file.read_text().splitlines() if line.count(":") > 1]
    except OSError:
        return []


def _upwards(path: str) -> Iterator[PurePosixPath]:
    relative = PurePosixPath(path.lstrip("/"))
    yield relative
    yield from relative.parents


def _read(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isascii() and text.isdecimal() and int(text) < _UNLIMITED else None
