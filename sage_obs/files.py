"""Files that survive a crash: append-only JSON lines, and whole files replaced in one step."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sage_obs.errors import SageObsError


class CorruptLineError(SageObsError):
    """A line that is not the last one cannot be read, so what follows it cannot be trusted."""


def append_json(path: Path, record: Mapping[str, Any]) -> None:
    """Append one JSON object as a line and flush it to disk before returning.

    A last line cut short by an earlier crash is removed first; if this write fails half-way (a full disk), what it wrote is taken
    back, so the file always ends with a whole line. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
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
    size = end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - 4096)
        cut = os.pread(descriptor, end - start, start).rfind(b"\n")
        if cut >= 0:
            return start + cut + 1
        end = start
    return 0 if size else size


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file written by `append_json`, oldest first; [] where there is no file.

    A last line without its newline was never acknowledged and is left out. Any other unreadable line raises CorruptLineError.
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
        if not isinstance(record, dict):
            raise CorruptLineError(
                f"{path} is corrupt at line {number}.", hint="Restore the file, or correct that line; nothing was changed."
            )
        records.append(record)
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
        temporary.unlink()
        raise
