"""Listening ports: who has one, and which is free."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from sage_obs.errors import UnavailableError

Policy = Literal["exact", "next", "any"]
"""What to do when a port is taken: fail, take the next free one, or never ask for a particular one."""

MAX_PORT: Final = 65535
_HOST: Final = "127.0.0.1"
_LISTEN: Final = "0A"


@dataclass(slots=True)
class Ports:
    """Hands out ports by a policy and never the same one twice."""

    policy: Policy
    _given: set[int] = field(default_factory=set)

    def take(self, name: str, wanted: int) -> int:
        """A free port for `name`: `wanted`, or what the policy allows instead. 0 asks for any.

        Raises UnavailableError naming the process that has it.
        """
        port = self._choose(name, 0 if self.policy == "any" else wanted)
        self._given.add(port)
        return port

    def _choose(self, name: str, wanted: int) -> int:
        if wanted == 0:
            return _any_port(self._given)
        if wanted not in self._given and is_free(wanted):
            return wanted
        above = range(wanted + 1, MAX_PORT + 1) if self.policy == "next" else ()
        found = next((port for port in above if port not in self._given and is_free(port)), None)
        if found is None:
            raise self._taken(name, wanted)
        return found

    def _taken(self, name: str, wanted: int) -> UnavailableError:
        by = "another part of this stack" if wanted in self._given else owner(wanted)
        none_above = " and no port above it is free" if self.policy == "next" else ""
        return UnavailableError(
            f"Port {wanted}, wanted for {name}, is taken by {by}{none_above}.",
            hint=f"Stop it, pass --port {name}=N, or --ports next to take the next free one.",
        )


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now. Raises UnavailableError where we may not use it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                return False
            raise UnavailableError(f"Port {port} cannot be used: {exc.strerror}.", hint="Choose one above 1023.") from exc
    return True


def _any_port(given: set[int]) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind((_HOST, 0))
            port = int(probe.getsockname()[1])
        if port not in given:
            return port


def owner(port: int) -> str:
    """Who listens on this port, such as `nginx (pid 812)`; read from /proc, so other users' processes stay unnamed without root."""
    inodes = {f"socket:[{inode}]" for table in ("tcp", "tcp6") for inode in _listening(table, port)}
    for process in Path("/proc").glob("[0-9]*"):
        if _has_descriptor(process, inodes):
            return f"{_command(process)} (pid {process.name})"
    return "a process that cannot be seen from here"


def _listening(table: str, port: int) -> list[str]:
    try:
        rows = [line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    except OSError:
        return []
    return [row[9] for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port]


def _has_descriptor(process: Path, inodes: set[str]) -> bool:
    try:
        return any(str(link.readlink()) in inodes for link in (process / "fd").iterdir())
    except OSError:
        return False


def _command(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "a process"
