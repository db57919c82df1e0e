"""Files that survive a crash: append-only JSON lines, and whole files replaced in one step."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sage_obs.errors import SageObsError


class CorruptLineError(SageObsError):
    """A line that is not the last one cannot be read, so what follows it cannot be trusted."""


def append_json(path: Path, record: Mapping[str, Any]) -> None:
    """Append one JSON object as a line and flush it to disk before returning.

    A last line cut short by an earlier crash is removed first; if this write fails half-way (a full disk), what it wrote is taken
    back, so the file always ends with a whole line. Several processes may append at once. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        whole = _whole_length(descriptor)
        os.ftruncate(descriptor, whole)
        try:
            _write_all(descriptor, line)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, whole)
            raise
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _whole_length(descriptor: int) -> int:
    """The length of the file up to and including its last newline, in bytes."""
    end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - 4096)
        cut = os.pread(descriptor, end - start, start).rfind(b"\n")
        if cut >= 0:
            return start + cut + 1
        end = start
    return 0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` while inside; others wait. The lock ends with the process, however that ends. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock file `path` now."""
    try:
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def read_json_lines(path: Path, *, strict: bool = True) -> list[dict[str, Any]]:
    """The objects of a file written by `append_json`, oldest first; [] where there is no file.

    A last line without its newline was never acknowledged and is left out. Any other unreadable line raises CorruptLineError, or is
    left out where not `strict`. Raises OSError.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    records = []
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        elif strict:
            raise CorruptLineError(
                f"{path} is corrupt at line {number}.", hint="Restore the file, or correct that line; nothing was changed."
            )
    return records


def replace_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write a whole file so that a reader sees the old content or the new, never a part. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
