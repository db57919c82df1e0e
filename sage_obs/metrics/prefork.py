"""Which processes belong together, as far as servers that start workers show it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

from sage_obs.metrics.member import parent_of

_SUPERVISORS: Final = ("gunicorn.arbiter", "uvicorn.supervisors", "granian.server.mp")
"""Modules whose process only starts workers, and serves nothing itself. Others keep the port, which only their health suffers from."""
_GUNICORN: Final = ("gunicorn.arbiter", "spawn_worker")
"""The function that forks a worker of gunicorn, which then works inside of it."""
_FORKS: Final = frozenset({_GUNICORN, ("multiprocessing.popen_fork", "_launch"), ("billiard.popen_fork", "_launch")})
"""The same, celery's, and multiprocessing's own, whose child does not know its parent before it has left the hooks of the fork."""
_SPAWNED: Final = "--multiprocessing-fork"
"""What a spawned child's command line says from its first line on, before multiprocessing itself is imported there."""
_FORK_SERVER: Final = ("multiprocessing.forkserver", "_serve_one")
"""The function inside of which a child lives that a process between it and its parent has forked."""


def parent() -> int | None:
    """The process that started this one as a worker beside others; None where this one is alone, as far as can be seen."""
    if (found := _parent_by_multiprocessing()) is not None:
        return found
    return os.getppid() if not _FORKS.isdisjoint(_calls(main_frame())) else None


def _parent_by_multiprocessing() -> int | None:
    """A spawned child knows its parent only once it has imported the program's main module, which may be what asks."""
    if (process := sys.modules.get("multiprocessing.process")) is None:
        return os.getppid() if _SPAWNED in sys.orig_argv else None
    if (found := process.parent_process()) is not None:
        return int(found.pid)
    if not getattr(process.current_process(), "_inheriting", False):
        return os.getppid() if _SPAWNED in sys.orig_argv else None
    return parent_of(os.getppid()) if _FORK_SERVER in _calls(main_frame()) else os.getppid()


def is_supervisor(frame: FrameType | None) -> bool:
    """Whether who stands here, forking or waiting, is a server's process that serves nothing itself."""
    if frame is None or _parent_by_multiprocessing() is not None or (frame.f_back is not None and _GUNICORN in _calls(frame.f_back)):
        return False
    return any(module.startswith(_SUPERVISORS) for module, _ in _calls(frame))


def main_frame() -> FrameType | None:
    """Where the main thread is."""
    return sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 - there is no other way to see a stack


def _calls(frame: FrameType | None) -> Iterator[tuple[str, str]]:
    """Module and function of each call under way, the innermost first."""
    while frame is not None:
        yield str(frame.f_globals.get("__name__", "")), frame.f_code.co_name
        frame = frame.f_back
