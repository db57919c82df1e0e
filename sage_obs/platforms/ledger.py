"""The release ledger: which release digests were proven good in production and which are known to be bad.

Append-only JSON lines; the last word on a digest counts. Rollbacks go to a release proven good, not to "the previous one".
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from sage_obs.errors import PlatformError
from sage_obs.files import CorruptLineError, append_json, read_json_lines
from sage_obs.platforms.base import Release


class Standing(enum.StrEnum):
    """What the ledger says of a release."""

    GOOD = "good"
    BAD = "bad"
    UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: who judged which release when (Unix time), and why."""

    digest: str
    version: str
    standing: Standing
    at: float
    by: str
    reason: str


class Ledger:
    """The ledger of one service, kept in `path`."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock

    def entries(self) -> tuple[Entry, ...]:
        """Every judgement, oldest first. Raises PlatformError for a corrupt file."""
        try:
            return tuple(Entry(**{**line, "standing": Standing(line["standing"])}) for line in read_json_lines(self._path))
        except (CorruptLineError, ValueError, TypeError, KeyError) as exc:
            raise PlatformError(f"The release ledger {self._path} cannot be read: {exc}.", hint="Nothing was changed.") from exc

    def standing(self, digest: str) -> Standing:
        """What the ledger says of this digest now."""
        return next((entry.standing for entry in reversed(self.entries()) if entry.digest == digest), Standing.UNPROVEN)

    def mark(self, release: Release, standing: Standing, *, by: str, reason: str) -> bool:
        """Write a judgement; returns False, and writes nothing, where the ledger already says so."""
        if self.standing(release.digest) is standing:
            return False
        append_json(self._path, asdict(Entry(release.digest, release.version, standing, self._clock(), by, reason)))
        return True
