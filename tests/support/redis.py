"""A Redis server on loopback: the one on PATH, else Debian's, unpacked into the project's state folder without root."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sage_obs.processes import spawn, stop
from tests.support.ports import free_port
from tests.support.workers import wait_until

FOLDER: Final = Path(__file__).parents[2] / ".sage-obs/redis"
_PACKAGES: Final = ("redis-tools", "libjemalloc2", "liblzf1")
"""The program is in the first, under another name; what it does depends on what it is called."""


def _program() -> Path:
    if (found := shutil.which("redis-server")) is not None:
        return Path(found)
    FOLDER.mkdir(parents=True, exist_ok=True)
    program = FOLDER / "unpacked/usr/bin/redis-server"
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.is_symlink():
            _fetch()
            program.symlink_to("redis-check-rdb")
    return program


def _fetch() -> None:
    if _run("apt-get", "--quiet", "download", *_PACKAGES):
        assert not _run("apt-get", "--quiet", "update"), "apt-get update failed"
        assert not _run("apt-get", "--quiet", "download", *_PACKAGES), f"cannot get {_PACKAGES} from Debian"
    for package in FOLDER.glob("*.deb"):
        assert not _run("dpkg", "-x", str(package), "unpacked")


def _run(*command: str) -> int:
    return subprocess.run(command, cwd=FOLDER, capture_output=True, timeout=120, check=False).returncode


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """The server, which keeps nothing; yields its URL."""
    program, port = _program(), free_port()
    libraries = next((FOLDER / "unpacked/usr/lib").glob("*-linux-*"), None)
    environment = {"LD_LIBRARY_PATH": str(libraries)} if libraries is not None else {}
    options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder))
    process = spawn("redis", [str(program), *options], log=folder / "redis.log", environment={**os.environ, **environment}, cwd=folder)
    try:
        wait_until(lambda: _answers(port))
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        stop([process], grace=5)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
