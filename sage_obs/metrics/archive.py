"""What dead processes have counted: one file, replaced whole, which also names the processes whose own files no longer count."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import orjson

from sage_obs.metrics.active import internal_error

Labels = tuple[str, ...]
Stamp = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Archived:
    """The numbers of one child of a counter or a histogram."""

    name: str
    labels: Labels
    bounds: tuple[float, ...]
    values: list[float]


@dataclass(frozen=True, slots=True)
class Archive:
    """The sums, and the members in them whose files may still be there."""

    members: frozenset[str] = frozenset()
    children: tuple[Archived, ...] = ()


class ArchiveFile:
    """The archive of one folder. It is written only by whoever holds the folder's lock."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "archive.json"
        self._read: tuple[Stamp, Archive] | None = None

    def stamp(self) -> Stamp | None:
        """Another one after each replacement; None while there is no archive."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def load(self) -> Archive:
        """The archive as it is now."""
        stamp = self.stamp()
        if stamp is None:
            return Archive()
        if self._read is None or self._read[0] != stamp:
            self._read = (stamp, _loaded(self._path.read_bytes()))
        return self._read[1]

    def replace(self, members: Iterable[str], children: Iterable[Archived]) -> None:
        """Write it anew: a reader, or whoever comes after a crash, sees the old one or the new one. Raises OSError."""
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        content = {"members": sorted(members), "children": [(one.name, one.labels, one.bounds, one.values) for one in children]}
        try:
            temporary.write_bytes(orjson.dumps(content))
            temporary.replace(self._path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def _loaded(data: bytes) -> Archive:
    """What a file says. One that is damaged, which no crash of ours leaves, counts as empty: a scrape without it beats none."""
    try:
        found = orjson.loads(data)
        children = [Archived(name, tuple(labels), tuple(bounds), _numbers(values)) for name, labels, bounds, values in found["children"]]
        return Archive(frozenset(found["members"]), tuple(children))
    except (ValueError, TypeError, KeyError) as exc:
        internal_error("metrics", exc)
        return Archive()


def _numbers(values: list[float | None]) -> list[float]:
    """JSON knows neither NaN nor infinity: a sum that was one of them stays unusable."""
    return [float("nan") if value is None else value for value in values]
