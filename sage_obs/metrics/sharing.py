"""This process's metrics beside those of its siblings, once there are any; until then nothing is written and nobody is asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sage_obs.errors import SageObsError
from sage_obs.metrics import prefork
from sage_obs.metrics.active import internal_error
from sage_obs.metrics.cells import Doubles
from sage_obs.metrics.folder import Folder
from sage_obs.metrics.member import Member, Running, here
from sage_obs.metrics.memory import CellFile
from sage_obs.metrics.merge import Merged
from sage_obs.metrics.store import Store

_COUNTED_AT_ONCE: Final = 64
"""Children that may have ended before their files are counted and removed: some 4 MB of memory."""


class Sharing:
    """Joins a folder when a second process exists: before a fork, as a worker of a server, or where a folder is configured.

    `port` is the metrics port, which the processes of one run have in common; `empty` makes a store like `store` to merge into.
    Where a folder cannot be had, this process's metrics stay its own.
    """

    def __init__(self, store: Store, *, port: int, configured: str, empty: Callable[[], Store]) -> None:
        self._store = store
        self._port = port
        self._configured = configured
        self._empty = empty
        self._folder: Folder | None = None
        self._file: CellFile | None = None
        self._merged: Merged | None = None
        self._apart = False
        self._held_back: list[Exception] | None = None
        self._lock = threading.Lock()
        self._children = 0
        self.why = ""

    @property
    def on(self) -> bool:
        """Whether others read this process's numbers."""
        return self._file is not None

    @property
    def may_answer(self) -> bool:
        """Whether the run goes on: those whose supervisor has died leave the port to the next run."""
        folder = self._folder
        return folder is not None and (folder.owner is None or folder.owner.alive)

    def start(self) -> None:
        """Join where siblings are known already."""
        if self._configured:
            self._join(Folder(Path(self._configured), None))
        elif (parent := prefork.parent()) is not None and (running := Running.of(parent)) is not None:
            self._join(Folder.around(running, self._port))
        else:
            self.look()

    def look(self) -> bool:
        """Join where a child of this process has begun to share; whether that is news."""
        if self._file is not None or self.why or (process := here()) is None or not Folder.of(process, self._port).path.is_dir():
            return False
        return self._join(Folder.of(process, self._port))

    def prepare_fork(self) -> None:
        """This process is about to have a child; every so often it first counts those that have ended, which nobody may scrape."""
        if self._file is None and not self.why and (process := here()) is not None:
            self._join(Folder.of(process, self._port))
        self._children += 1
        if self._children % _COUNTED_AT_ONCE == 0:
            with self._lock:
                self._everybody()

    def _join(self, folder: Folder) -> bool:
        with self._lock:
            if self._file is not None:
                return False
            try:
                folder.create()
                self._open(folder)
            except (OSError, SageObsError) as exc:
                self.why = f"this process alone: {exc}"
                self._report(exc)
                return False
            self._store.move(self)
            return True

    def _open(self, folder: Folder) -> None:
        process = here()
        if process is None:
            raise SageObsError("This system does not tell when a process started.")
        self._file = CellFile(folder.path, Member.new(process))
        self._folder, self._merged = folder, None

    def place(self, name: str, labels: tuple[str, ...], bounds: tuple[float, ...], size: int) -> Doubles | None:
        """Room for a child's numbers in the file; None where there is none left, and this process alone knows them."""
        if self._file is None:
            return None
        try:
            return self._file.place(name, labels, bounds, size)
        except OSError as exc:
            self._apart = True
            self._report(exc)
            return None

    def restart_after_fork(self) -> None:
        """Count in a place of its own in a forked child, from zero."""
        self._lock = threading.Lock()
        if self._file is None or self._folder is None:
            return
        self._file.abandon()
        self._file, self._merged, self._held_back = None, None, []
        try:
            self._open(self._folder)
        except (OSError, SageObsError) as exc:
            self._report(exc)
        self._store.begin_anew(self)
        errors, self._held_back = self._held_back, None
        for error in errors:
            self._report(error)

    def _report(self, error: Exception) -> None:
        """Count an error, in a forked child once it no longer counts in its parent's memory."""
        if self._held_back is not None:
            self._held_back.append(error)
        else:
            internal_error("metrics", error)

    @contextmanager
    def reading(self) -> Iterator[Store]:
        """What a scrape shows: this process's store, or one that holds everybody's. Raises UnavailableError."""
        self.look()
        with self._lock:
            yield self._everybody() or self._store

    def _everybody(self) -> Store | None:
        if self._file is None or self._folder is None:
            return None
        if self._merged is None:
            self._merged = Merged(self._folder, self._empty(), own=self._file.member, on_error=self._report)
        try:
            self._merged.update(self._store, apart=self._apart)
            self._folder.ask()
        except OSError as exc:
            self._report(exc)
            return None
        return self._merged.store

    def asked(self) -> int:
        """Another number whenever somebody has scraped."""
        return 0 if self._folder is None else self._folder.asked()

    def stop(self) -> None:
        """Share no more; what was counted stays counted for as long as the run lasts."""
        self.leave()
        with self._lock:
            file, self._file = self._file, None
            if file is not None:
                file.close()

    def leave(self) -> None:
        """The process ends."""
        if self._folder is not None and self._file is not None:
            with suppress(OSError):
                self._folder.leave(self._file.member.process)
