"""Locks on what a run changes: one holder per resource, released by the kernel whatever becomes of the holder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sage_obs.errors import JournalError, LockHeldError


@contextmanager
def holding(state: Path, names: Sequence[str], *, run: str) -> Iterator[None]:
    """Hold `<state>/locks/<name>.lock` for each name. Raises LockHeldError, naming the run that holds it, without waiting."""
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(_hold(state / "locks" / f"{name}.lock", run))
        yield


@contextmanager
def _hold(path: Path, run: str) -> Iterator[None]:
    descriptor = _open(path)
    try:
        _take(descriptor, path)
        _sign(descriptor, run)
        yield
    finally:
        os.close(descriptor)


def _sign(descriptor: int, run: str) -> None:
    """Say who holds it. On a full disk nobody is told, but the lock is held all the same."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{run} (pid {os.getpid()})".encode(), 0)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as exc:
        raise JournalError(f"Cannot open the lock {path} ({exc.strerror}). Nothing was changed.") from exc


def _take(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another run"
        raise LockHeldError(
            f"{path.stem} is being changed by {holder}.", hint="Wait until it has finished: `sage-obs runbook status` shows it."
        ) from exc
