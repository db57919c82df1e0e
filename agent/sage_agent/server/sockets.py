"""The listening socket: bound here, or handed over by a supervisor."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Final

from sage_obs.errors import ConfigError, UnavailableError

BACKLOG: Final = 2048
_OURS: Final = "SAGE_LISTEN_FD"
"""The descriptor of the socket, where our own supervisor passes it."""
_FIRST_PASSED_FD: Final = 3
"""sd_listen_fds(3): passed sockets begin here."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that takes connections already. `inherited` ones are shared: others may be taking from them too."""

    sock: socket.socket
    inherited: bool

    @property
    def host(self) -> str:
        """The address it is bound to."""
        return str(self.sock.getsockname()[0])

    @property
    def port(self) -> int:
        """The port it is bound to, whichever was asked for."""
        return int(self.sock.getsockname()[1])


def open_listener(host: str, port: int, *, environ: MutableMapping[str, str], shared: bool = False) -> Listener:
    """The socket a supervisor passed (the protocol of sd_listen_fds(3)), else a new one on this address; port 0 is any free one.

    With `shared`, other processes may bind the same address.
    The protocol's variables are taken out of `environ`, so that no child believes they are meant for it.
    Raises UnavailableError where the port is taken, ConfigError for an address that is not this machine's.
    """
    passed = _take_passed(environ)
    if passed is None:
        return Listener(_bind(host, port, shared=shared), inherited=False)
    try:
        sock = socket.socket(fileno=passed)
        sock.setblocking(False)
        listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as exc:
        raise ConfigError(f"LISTEN_FDS is set but file descriptor {passed} is not a socket.", hint="Unset LISTEN_FDS.") from exc
    if not listening or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        raise ConfigError(f"LISTEN_FDS passes file descriptor {passed}, which is not a listening TCP socket.", hint="Unset LISTEN_FDS.")
    return Listener(sock, inherited=True)


def _take_passed(environ: MutableMapping[str, str]) -> int | None:
    if (ours := environ.pop(_OURS, "")).isdigit():
        os.set_inheritable(int(ours), False)
        return int(ours)
    count, pid = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    environ.pop("LISTEN_FDNAMES", None)
    if not count or (pid and pid != str(os.getpid())):
        return None
    if count != "1":
        raise ConfigError(f"LISTEN_FDS={count[:20]!r}: exactly one socket can be passed.", hint="Pass one listening socket.")
    os.set_inheritable(_FIRST_PASSED_FD, False)
    return _FIRST_PASSED_FD


def _bind(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as exc:
        sock.close()
        raise _cannot_bind(host, port, exc) from exc
    return sock


def _cannot_bind(host: str, port: int, exc: OSError) -> ConfigError | UnavailableError:
    if exc.errno == errno.EADDRINUSE:
        return UnavailableError(f"Port {port} on {host} is taken by another process.", hint="Stop it, or choose another with --port.")
    if exc.errno == errno.EACCES:
        return UnavailableError(f"Port {port} needs privileges this process does not have.", hint="Choose one above 1023 with --port.")
    return ConfigError(f"Cannot listen on {host} port {port}: {exc.strerror or exc}.", hint="Give an address of this machine with --host.")
