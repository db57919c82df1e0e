"""The folder that the processes of one run of a service share, by default one under a private folder that only this user can enter."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from sage_obs.errors import UnavailableError
from sage_obs.metrics.member import Member, Running
from sage_obs.metrics.memory import is_held

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a private folder is made in it; on a disk, writing back could hold up a request
_PRIVATE: Final = 0o700
_FOREIGN_SECONDS: Final = 3600.0
"""A run in another container, none of whose workers lives, is over after this long: the server that starts them has no file."""
_ASKED: Final = "asked"


@dataclass(frozen=True, slots=True)
class Folder:
    """Where the members of one run meet. `owner` is the process they come from, None where the folder was configured."""

    path: Path
    owner: Running | None

    @classmethod
    def of(cls, owner: Running, port: int) -> Self:
        """The folder of the processes that come from `owner` and share a metrics port."""
        return cls(base() / f"{owner.pid}-{owner.started}-{port}", owner)

    @classmethod
    def around(cls, parent: Running, port: int) -> Self:
        """The folder that `parent` is a member of, else the one it owns: so children of a worker find their way too."""
        for found in base().glob(f"*-{port}/{parent.pid}-{parent.started}-*.cells"):
            if (owner := _owner(found.parent)) is not None:
                return cls(found.parent, owner)
        return cls.of(parent, port)

    def create(self) -> None:
        """Make it, and remove those of runs that have ended. Raises OSError, and UnavailableError where it would not be private."""
        if self.owner is None:
            self.path.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
            return
        _make_private(self.path.parent)
        _sweep(self.path.parent)
        self.path.mkdir(mode=_PRIVATE, exist_ok=True)

    def members(self) -> Sequence[Member]:
        """Whoever has files here, the oldest first."""
        found = (Member.parse(path.stem) for path in self.path.glob("*.cells"))
        return sorted(member for member in found if member is not None)

    def remove_member(self, name: str) -> None:
        """Remove a member's files; it is one as long as its cells are there."""
        for suffix in ("index", "cells"):
            (self.path / f"{name}.{suffix}").unlink(missing_ok=True)

    def leave(self, process: Running) -> None:
        """The process ends: the last one of a run that comes back no more removes the folder."""
        if self.owner is None or (self.owner != process and self.owner.alive):
            return
        if not any(one.process != process and one.process.alive for one in self.members()):
            shutil.rmtree(self.path, ignore_errors=True)

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Whether this is the only process here that holds the lock meanwhile. Raises OSError where there can be no lock."""
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough where a child was forked meanwhile
            os.close(descriptor)

    def ask(self) -> None:
        """Let the others know that somebody looks at the gauges."""
        (self.path / _ASKED).touch()

    def asked(self) -> int:
        """Another number after each `ask`; 0 before the first."""
        try:
            return (self.path / _ASKED).stat().st_mtime_ns
        except OSError:
            return 0


def base() -> Path:
    """This user's folder for the folders of runs: one per process id namespace, as containers of one pod share memory but not ids."""
    usable = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK | os.X_OK)
    return (_MEMORY if usable else Path(tempfile.gettempdir())) / f"{_prefix()}{_namespace()}"


def _prefix() -> str:
    return f"sage-obs-{os.getuid()}-"


def _namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def _make_private(path: Path) -> None:
    path.mkdir(mode=_PRIVATE, exist_ok=True)
    found = path.lstat()
    if path.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UnavailableError(f"{path} is not a private folder of this user.", hint="Remove it, or set SAGE_MULTIPROCESS_DIR.")


def _owner(path: Path) -> Running | None:
    """Who a folder is called after."""
    found = Member.parse(path.name)
    return None if found is None else found.process


def _sweep(base: Path) -> None:
    """Remove the folders of runs whose processes have all ended: those that were killed could not."""
    for path in base.iterdir():
        owner = _owner(path)
        if owner is not None and not owner.alive and not any(one.process.alive for one in Folder(path, owner).members()):
            shutil.rmtree(path, ignore_errors=True)
    for foreign in base.parent.glob(f"{_prefix()}*"):
        if foreign != base:
            _sweep_foreign(foreign)


def _sweep_foreign(base: Path) -> None:
    """The same where process ids are those of another container, which may be gone: there only locks tell who lives."""
    with suppress(OSError):
        for path in (path for path in base.iterdir() if _age(path) > _FOREIGN_SECONDS):
            if not any(is_held(cells) for cells in path.glob("*.cells")):
                shutil.rmtree(path, ignore_errors=True)
        if _age(base) > _FOREIGN_SECONDS:
            base.rmdir()  # which fails while there is anything in it


def _age(path: Path) -> float:
    """Seconds since something was last made or removed in a folder."""
    return time.time() - path.stat().st_mtime
