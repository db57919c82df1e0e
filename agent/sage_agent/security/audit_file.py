"""The audit log's file: one process at a time goes on with it, a crash in the middle of a line is marked, old parts are set aside."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sage_agent.security.audit_chain import RECOVERED, Head, Verdict, Verifier, last_of, seal, sha256
from sage_obs.errors import ConfigError

_SLOTS: Final = 64
_TAIL_BYTES: Final = 256 * 1024
"""Enough for the last whole line: a record is far shorter."""
Record = dict[str, Any]


def slot(path: Path, number: int) -> Path:
    """The file of one of several processes: `audit.jsonl`, `audit-2.jsonl` and so on."""
    return path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def beside(path: Path, name: str) -> Path:
    """A file that belongs to the log: its `head`, its `lock`, a part that was set aside."""
    return path.with_name(f"{path.name}.{name}")


def parts(path: Path) -> list[Path]:
    """What was set aside, the oldest first."""
    return sorted(one for one in path.parent.glob(f"{path.name}.*") if one.suffix[1:].isdigit())


def now() -> str:
    """The time of a record."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class AuditFile:
    """The first of a path's files that no other process writes to. It blocks; `append` raises OSError and leaves no half line behind."""

    def __init__(self, path: Path, *, key: bytes, max_bytes: int, keep: int) -> None:
        """Raises ConfigError where it cannot be written, and where it was sealed with another key."""
        self._key = key
        self._max_bytes = max_bytes
        self._keep = keep
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path, self._lock = _take_slot(path)
            self.head, cut = self._resume()
            self._file = self._open()
            self._size = os.fstat(self._file).st_size
            if cut:
                self._mark(cut)
        except OSError as exc:
            raise ConfigError(
                f"The audit log {path} cannot be written ({exc.strerror}).", hint="Correct security.audit.path, or leave it empty."
            ) from exc

    def append(self, records: Sequence[Record]) -> None:
        """Write records, and keep where the chain ends now."""
        lines, head = [], self.head
        for record in records:
            line, head = seal(record, head, self._key)
            lines.append(line + b"\n")
        self._write(b"".join(lines))
        self.head = head
        with contextlib.suppress(OSError):  # the records are written; a head that is behind is right about what it knows
            self._keep_head()
            if self._size >= self._max_bytes:
                self._set_aside()

    def close(self) -> None:
        """Let another process go on with it."""
        os.close(self._file)
        os.close(self._lock)

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def _write(self, data: bytes) -> None:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)

    def _keep_head(self) -> None:
        """Replaced as a whole, so that it is never half of one."""
        target, fresh = beside(self.path, "head"), beside(self.path, "head.new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(self.head.dump(self._key) + b"\n")
            file.flush()
            os.fdatasync(file.fileno())  # after a power cut an empty one would pass for one that somebody has changed
        fresh.replace(target)

    def _resume(self) -> tuple[Head, bytes]:
        """Where to go on, and what was cut short. The head counts where the file has less than it: then lines are missing."""
        kept = read_head(self.path, self._key)
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                tail = file.read()
        except FileNotFoundError:
            return kept or Head(), b""
        found, cut = last_of(tail, self._key, 1 if kept is None else kept.first)
        return (kept if kept is not None and kept.seq > found.seq else found), cut

    def _mark(self, cut: bytes) -> None:
        """End the line that was cut short, and say which it was."""
        self._write(b"\n")
        self.append(
            [{"time": now(), "event": RECOVERED, "outcome": "recovered", "cut": sha256(cut), "bytes": len(cut), "pid": os.getpid()}]
        )

    def _set_aside(self) -> None:
        """Begin another file. Where that cannot be opened all stays as it was: a number once closed may be a caller's connection next."""
        aside = beside(self.path, f"{_first_of(self.path):012d}")
        self.path.rename(aside)
        try:
            fresh = self._open()
        except OSError:
            aside.rename(self.path)
            raise
        os.close(self._file)
        self._file, self._size = fresh, 0
        old = parts(self.path)
        for one in old[: -self._keep]:
            one.unlink()
        if len(old) > self._keep:
            self.head = Head(self.head.seq, self.head.sha256, int(old[-self._keep].suffix[1:]))
            self._keep_head()


def _take_slot(path: Path) -> tuple[Path, int]:
    for number in range(1, _SLOTS + 1):
        own = slot(path, number)
        lock = os.open(beside(own, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        return own, lock
    raise ConfigError(f"{_SLOTS} processes write to the audit log {path} already.", hint="Give each agent its own security.audit.path.")


def _first_of(path: Path) -> int:
    """The number of a file's first record, which a line that was cut short may stand before."""
    verifier = Verifier()
    with path.open("rb") as file:
        while not verifier.verdict.begins and (line := file.readline()):
            verifier.follow([line])
    return verifier.verdict.begins


def read_head(path: Path, key: bytes) -> Head | None:
    """The end of the chain as it was kept; None where it was not. Raises ConfigError for one that another key sealed."""
    try:
        line = beside(path, "head").read_bytes()
    except FileNotFoundError:
        return None
    head = Head.load(line, key)
    if head is None:
        raise ConfigError(
            f"{beside(path, 'head')} was changed, or sealed with another key than security.audit.key.",
            hint="Verify the log with its key, then move it away with the files beside it: a new chain begins.",
        )
    return head


def verify(path: Path, *, key: bytes, expected: Sequence[tuple[int, str]] = ()) -> Verdict:
    """Follow a log through all its parts. Raises ConfigError where there is none, and for a head that another key sealed."""
    files = [*parts(path), *([path] if path.exists() else [])]
    if not files:
        raise ConfigError(f"There is no audit log {path}.", hint="Name the file of security.audit.path.")
    kept = read_head(path, key)
    wanted = [seq for seq, _ in expected] + ([kept.seq] if kept is not None else [])
    verifier = Verifier(key)
    try:
        verifier.follow(_lines(files), wanted=wanted)
    except OSError as exc:
        raise ConfigError(f"Cannot read the audit log {path} ({exc.strerror}).", hint="Run this as a user who may.") from exc
    verdict = verifier.finish(kept, expected)
    if kept is None:
        verdict.say(f"{beside(path, 'head')} is missing: nobody knows whether records are missing at the end")
    return verdict


def _lines(files: Sequence[Path]) -> Iterator[bytes]:
    for one in files:
        with one.open("rb") as file:
            yield from file
