"""Taking connections from a socket that other processes take from, too."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from ssl import SSLContext
from typing import Final, Protocol

_log = logging.getLogger("sage_agent")
_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE_SECONDS: Final = 0.5
_HANDSHAKE_SECONDS: Final = 10.0
_LAST_HANDSHAKE_SECONDS: Final = 2.0
"""The same once no more connections are taken: who was connected a moment ago and means to ask is done by then."""


class Accepting(Protocol):
    """Something that takes connections until it is closed."""

    def close(self) -> None:
        """Take no more."""


class TakingTurns:
    """Takes one connection each time the loop goes round: a process that is busy goes round less often, and leaves more to others."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        make: Callable[[], asyncio.Protocol],
        *,
        tls: Callable[[], SSLContext] | None,
        arriving: set[asyncio.Task[None]],
    ) -> None:
        """`arriving` holds those that were taken and are not yet a protocol's."""
        self._loop = loop
        self._sock = sock
        self._make = make
        self._tls = tls
        self._arriving = arriving
        self._closed = False
        loop.add_reader(sock, self._take)

    def close(self) -> None:
        """Take no more; the socket is left to the others."""
        if not self._closed:
            self._closed = True
            self._loop.call_later(_LAST_HANDSHAKE_SECONDS, self._turn_away)
            self._loop.remove_reader(self._sock)
            self._sock.close()

    def _take(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as exc:
            if exc.errno not in _OUT_OF_RESOURCES:
                raise
            _log.error("no connection can be taken", extra={"reason": exc.strerror})
            self._loop.remove_reader(self._sock)
            self._loop.call_later(_PAUSE_SECONDS, self._go_on)
            return
        sock.setblocking(False)
        task = self._loop.create_task(self._welcome(sock))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    def _turn_away(self) -> None:
        for task in self._arriving:
            task.cancel()

    def _go_on(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._sock, self._take)

    async def _welcome(self, sock: socket.socket) -> None:
        handshake = _HANDSHAKE_SECONDS if self._tls is not None else None
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._make, sock, ssl=self._tls and self._tls(), ssl_handshake_timeout=handshake)
        except (OSError, TimeoutError):  # whoever it was has left, or speaks no TLS
            sock.close()
        except asyncio.CancelledError:
            sock.close()
            raise
