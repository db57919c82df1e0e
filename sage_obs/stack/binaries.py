"""Prometheus and Alertmanager: from PATH, else from Debian's packages unpacked into the state folder.

Nothing is installed on the system: no root is needed and no service starts that would take a port. apt verifies what it downloads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from sage_obs.errors import UnavailableError
from sage_obs.stack.state import DEFAULT_STATE

_DOWNLOAD_TIMEOUT: Final = 180.0
_POLL: Final = 0.2

_COMPILED_IN: Final = b"/usr/share/prometheus"
_RELATIVE: Final = b"usr/share/prometheus/"


@dataclass(frozen=True, slots=True)
class _Binary:
    package: str
    names: tuple[str, ...]


_BINARIES: Final = {
    "prometheus": _Binary("prometheus", ("prometheus",)),
    "promtool": _Binary("prometheus", ("promtool",)),
    "alertmanager": _Binary("prometheus-alertmanager", ("prometheus-alertmanager", "alertmanager")),
    "amtool": _Binary("prometheus-alertmanager", ("amtool",)),
}
NAMES: Final = tuple(_BINARIES)
"""What `find` knows."""


def find(
    name: str, *, state: Path = DEFAULT_STATE, say: Callable[[str], None] = lambda _: None, check: Callable[[], None] = lambda: None
) -> Path:
    """The path of one of `NAMES`, fetched into `state`/bin if it is not on PATH; `say` hears of it before it takes long.

    `check` is called a few times a second while it takes long; what it raises ends the fetching, with nothing half-unpacked left.
    Raises UnavailableError, saying what to install, where it cannot be had.
    """
    binary = _BINARIES[name]
    folder = (state / "bin").absolute()
    if (found := _on_path(binary) or _unpacked(binary, folder)) is not None:
        return found
    with _exclusive(folder, check):
        found = _unpacked(binary, folder)
        if found is None:
            say(f"{binary.package}: not on PATH, fetching Debian's package into {folder}")
            _fetch(binary.package, folder, _Run(check))
            found = _unpacked(binary, folder)
    if found is None:
        raise _unavailable(name, f"the package {binary.package} does not contain it")
    return found


def _on_path(binary: _Binary) -> Path | None:
    return next((Path(path) for name in binary.names if (path := shutil.which(name))), None)


def _unpacked(binary: _Binary, folder: Path) -> Path | None:
    candidates = (folder / binary.package / "usr/bin" / name for name in binary.names)
    return next((path for path in candidates if os.access(path, os.X_OK)), None)


@contextmanager
def _exclusive(folder: Path, check: Callable[[], None]) -> Iterator[None]:
    """Only one process fetches; the others wait for it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        while not _locked(lock):
            check()
            time.sleep(_POLL)
        yield


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _fetch(package: str, folder: Path, run: _Run) -> None:
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise _unavailable(package, f"it is not on PATH and this system has no {tool} to get it with")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        archive = _download(package, Path(scratch), folder, run)
        unpacked = Path(scratch) / "unpacked"
        _check(run(["dpkg", "-x", str(archive), str(unpacked)]), package)
        _relocate(unpacked)
        target = folder / package
        shutil.rmtree(target, ignore_errors=True)
        unpacked.rename(target)


def _relocate(unpacked: Path) -> None:
    """Make the data folder that Debian compiles in relative, so that a program started in `home()` finds its own copy of it.

    A Go string carries its length, so the new path has the same: the leading slash moves to the end.
    """
    for program in (unpacked / "usr/bin").iterdir():
        program.write_bytes(program.read_bytes().replace(_COMPILED_IN, _RELATIVE))


def home(binary: Path) -> Path:
    """The folder to start a binary in: what `usr/bin` lies in, which is `/` for one the system has installed."""
    return binary.absolute().parents[min(2, len(binary.absolute().parents) - 1)]


def _download(package: str, scratch: Path, folder: Path, run: _Run) -> Path:
    """Download with the system's package lists; where it has none, with lists of our own (which needs no root)."""
    result = run(["apt-get", "--quiet", "download", package], cwd=scratch)
    if result.returncode != 0:
        own = _own_lists(folder)
        _check(run(["apt-get", "--quiet", *own, "update"]), package)
        result = run(["apt-get", "--quiet", *own, "download", package], cwd=scratch)
    _check(result, package)
    return next(scratch.glob("*.deb"))


def _own_lists(folder: Path) -> list[str]:
    lists, cache = folder / "apt/lists", folder / "apt/cache"
    for path in (lists / "partial", cache / "archives/partial"):
        path.mkdir(parents=True, exist_ok=True)
    return ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache}", "-o", "APT::Sandbox::User=", "-o", "Debug::NoLocking=1"]


class _Run:
    """Runs a command to its end, which is seen to a few times a second so that waiting can be left."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check

    def __call__(self, command: list[str], *, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """How it ended; exit code 124, timeout(1)'s, where it took too long. Raises what `check` raises, with the command ended."""
        deadline = time.monotonic() + _DOWNLOAD_TIMEOUT
        with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                while time.monotonic() < deadline:
                    self._check()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        out, err = process.communicate(timeout=_POLL)
                        return subprocess.CompletedProcess(command, process.returncode, out, err)
            finally:
                process.kill()
        return subprocess.CompletedProcess(command, 124, "", f"no answer within {_DOWNLOAD_TIMEOUT:.0f} s")


def _check(result: subprocess.CompletedProcess[str], package: str) -> None:
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise _unavailable(package, f"`{' '.join(result.args[:1] + result.args[-2:])}` failed: {last}")


def _unavailable(name: str, reason: str) -> UnavailableError:
    return UnavailableError(f"Cannot get {name}: {reason}.", hint="Install Prometheus and Alertmanager so that they are on PATH.")
