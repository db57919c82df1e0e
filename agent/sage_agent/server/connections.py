"""What all connections of a server share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Protocol

Application = Callable[..., Awaitable[None]]
Scope = MutableMapping[str, Any]


class Opened(Protocol):
    """A connection that is open."""

    @property
    def in_use(self) -> bool:
        """Whether a request is being received or answered on it."""

    @property
    def transport(self) -> asyncio.Transport:
        """What it is written to."""

    def tick(self, now: float) -> None:
        """End what takes too long."""

    def shutdown(self) -> None:
        """Close it now if nothing is being answered, else after the answer."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a connection may do: bytes and number of a request's headers, seconds until they are there, seconds without a request.

    `keep_alive` is longer than the idle timeout of common load balancers (60 s), so that they and not we close idle connections.
    """

    head_bytes: int = 32 * 1024
    headers: int = 128
    head_seconds: float = 15.0
    keep_alive: float = 75.0
    buffered: int = 64 * 1024
    """Bytes of a body that wait for the application; then nothing more is read from the connection."""
    pipelined: int = 16
    """Requests that wait behind the one that is answered; then the same."""
    pipelined_most: int = 1024
    """Requests that may wait there at all, as many small ones arrive at once: half a megabyte of ours."""
    stalled: float = 30.0
    """Seconds in which a caller that is answered has to take something of it."""


@dataclass(slots=True)
class Connections:
    """The open connections, the requests under way, and what they are answered by. It belongs to one event loop."""

    app: Application
    bounds: Bounds = field(default_factory=Bounds)
    opened: set[Opened] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    arriving: set[asyncio.Task[None]] = field(default_factory=set)
    """Connections that were taken and have yet to shake hands."""
    draining: bool = False
    date: bytes = b""

    def tick(self) -> None:
        """Once a second: the date of answers, and the end of connections that take too long."""
        self.date = b"date: %b\r\n" % formatdate(time.time(), usegmt=True).encode()
        now = asyncio.get_running_loop().time()
        for connection in list(self.opened):
            connection.tick(now)
