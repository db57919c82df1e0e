"""Where a stack keeps its files, its lock, and the note a running stack leaves for other commands.

Everything lives under one state folder (`.sage-obs/` unless told otherwise):
`stack.json`, `platform/`, `prometheus/`, `alertmanager/`, `runs/`, `locks/`, `logs/`, `bin/`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from sage_obs.errors import LockHeldError
from sage_obs.files import is_locked, replace_text

DEFAULT_STATE: Final = Path(".sage-obs")
_NOTE: Final = "stack.json"
_LOCK: Final = "up.lock"


@dataclass(frozen=True, slots=True)
class StackNote:
    """A running stack: its supervisor's pid, the profile of its rules and its addresses ("" where a part is not running)."""

    pid: int
    profile: str
    prometheus_url: str
    alertmanager_url: str
    responder_url: str
    agent_url: str

    def write(self, state: Path) -> None:
        """Leave the note. Raises OSError."""
        replace_text(state / _NOTE, json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")


def read_note(state: Path) -> StackNote | None:
    """The note of the stack that runs on this state folder, None where none does: a stack holds the folder's lock while it lives."""
    if not is_locked(state / _LOCK):
        return None
    try:
        return StackNote(**json.loads((state / _NOTE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def remove_note(state: Path) -> None:
    """Take the note away when the stack stops."""
    (state / _NOTE).unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive(state: Path) -> Iterator[None]:
    """Be the one stack on a state folder while inside. Raises LockHeldError naming the other, OSError."""
    with (state / _LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            lock.seek(0)
            message = f"A stack already runs on {state} (pid {lock.read().strip()})."
            raise LockHeldError(message, hint="Stop it with Ctrl-C there, or choose another folder with --state.") from exc
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
