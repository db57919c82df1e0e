"""The other processes of one service: each answers for itself on a port of its own, and who has the port that is known asks them."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Final

from sage_obs.metrics.member import Running, here
from sage_obs.ops.pages import Asked, Page
from sage_obs.profiling.parameters import MOST_SECONDS

_PREFIX: Final = "sage-obs-profiling-"
_HOST: Final = "127.0.0.1"
_NAME: Final = re.compile(r"\d{1,10}-\d{1,18}", re.ASCII)
_MARGIN_SECONDS: Final = 30
_MOST_BYTES: Final = 64 * 1024 * 1024
_PASSED_ON: Final = ("authorization",)
_KEPT: Final = ("content-type", "content-disposition", "x-content-type-options", "x-go-pprof", "retry-after", "cache-control")


class Siblings:
    """A folder with a file for each process, named by its id and its start, that holds the port it answers on at this machine.

    It belongs to one user and to the processes of one service, which `family` tells from others.
    """

    def __init__(self, family: str) -> None:
        self._folder = Path(tempfile.gettempdir()) / f"{_PREFIX}{os.getuid()}-{family}"
        self._file: Path | None = None

    def tell(self, port: int) -> None:
        """Say where this process answers. Raises OSError where the folder is somebody else's."""
        if (process := here()) is None:
            return
        self._sweep()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if self._folder.is_symlink() or self._folder.stat().st_uid != os.getuid():
            raise PermissionError(1, "it belongs to somebody else", str(self._folder))
        self._file = self._folder / f"{process.pid}-{process.started}"
        try:
            self._file.write_text(str(port))
        except FileNotFoundError:  # somebody has swept the folder while it was empty
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._file.write_text(str(port))

    def _sweep(self) -> None:
        """Remove what services that were killed have left."""
        for folder in self._folder.parent.glob(f"{_PREFIX}{os.getuid()}-*"):
            others = Siblings(folder.name.rpartition("-")[2])
            if folder != self._folder and not others.pids():
                with contextlib.suppress(OSError):  # another sweeps too, or it is somebody else's
                    folder.rmdir()

    def leave(self) -> None:
        """Answer no more."""
        file, self._file = self._file, None
        if file is not None:
            file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # others are still there
                self._folder.rmdir()

    def pids(self) -> list[int]:
        """The others, in order."""
        return sorted(self._others())

    def _others(self) -> dict[int, Path]:
        """Their files; what those that have ended have left is removed."""
        found = {}
        for file in self._files():
            pid, _, started = file.name.partition("-")
            if not Running(int(started), int(pid)).alive:
                file.unlink(missing_ok=True)
            elif int(pid) != os.getpid():
                found[int(pid)] = file
        return found

    def _files(self) -> list[Path]:
        try:
            if self._folder.is_symlink() or self._folder.stat().st_uid != os.getuid():
                return []
            return [file for file in self._folder.iterdir() if _NAME.fullmatch(file.name)]
        except OSError:
            return []

    def words(self, pid: int) -> str:
        """That there is no such process here, and which there are."""
        others = ", ".join(map(str, [os.getpid(), *self.pids()]))
        return f"No process {pid} of this service answers here; there are {others}."

    def ask(self, pid: int, asked: Asked) -> Page | None:
        """What a sibling answers; None where there is none that does."""
        try:
            port = int(self._others()[pid].read_text())
        except (KeyError, OSError, ValueError):
            return None
        connection = http.client.HTTPConnection(_HOST, port, timeout=MOST_SECONDS + _MARGIN_SECONDS)
        headers = {name: asked.headers[name] for name in _PASSED_ON if name in asked.headers}
        with contextlib.suppress(OSError, http.client.HTTPException), closing(connection):
            connection.request("GET", f"{asked.path}?{asked.query}", headers=headers)
            answer = connection.getresponse()
            kept = {name: value for name in _KEPT if (value := answer.getheader(name))}
            return Page(answer.status, answer.read(_MOST_BYTES), kept)
        return None
