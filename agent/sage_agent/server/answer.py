"""One request on a connection, as an ASGI application sees it."""

from __future__ import annotations

import asyncio
import http
import re
from typing import Any, Final, Protocol

from sage_agent.server.connections import Scope

Event = dict[str, Any]
STATUS_LINES: Final = {status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in http.HTTPStatus}
_NO_BODY: Final = frozenset({204, 304})
_UNFIT: Final = re.compile(rb"[\r\n\x00]").search


class Line(Protocol):
    """The connection a request came on."""

    choked: bool

    @property
    def draining(self) -> bool:
        """Whether no more requests are wanted on it."""

    @property
    def date(self) -> bytes:
        """The date header of an answer."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    async def drained(self) -> None:
        """Wait until the caller has read."""

    def abort(self) -> None:
        """Break it off."""

    def answered(self, exchange: Exchange) -> None:
        """The answer to a request is written."""

    def read_on(self, exchange: Exchange) -> None:
        """A request waits for what its caller does next."""


class Exchange:
    """A request and its answer. The head of an answer waits for the first of its body, so that a whole answer is one write."""

    __slots__ = (
        "_body",
        "_chunked",
        "_connection",
        "_continue",
        "_head",
        "_left",
        "_told",
        "_waiter",
        "complete",
        "finished",
        "gone",
        "keep_alive",
        "scope",
        "started",
    )

    def __init__(self, connection: Line, scope: Scope, *, keep_alive: bool, expects_continue: bool) -> None:
        self.scope = scope
        self.keep_alive = keep_alive
        self.complete = False
        """Whether all of the request is here."""
        self.started = False
        """Whether anything of the answer was written."""
        self.finished = False
        """Whether all of it was."""
        self.gone = False
        """Whether the caller has left."""
        self._connection = connection
        self._continue = expects_continue
        self._body = bytearray()
        self._told = False
        self._waiter: asyncio.Future[None] | None = None
        self._head: list[bytes] | None = None
        self._chunked = False
        self._left: int | None = None

    @property
    def buffered(self) -> int:
        """Bytes of the body that nobody has taken yet."""
        return len(self._body)

    def feed(self, data: bytes) -> None:
        """More of the body is here."""
        self._body += data
        self.wake()

    def wake(self) -> None:
        """Something has changed for whoever waits in `receive`."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self) -> Event:
        """The next piece of the body, once; then, when the caller leaves or the answer is whole, that there is nobody any more."""
        if self._continue and not self.complete and not self.started:
            self._continue = False
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self.gone or self.finished or self._body or (self.complete and not self._told)):
            self._waiter = asyncio.get_running_loop().create_future()
            self._connection.read_on(self)
            await self._waiter
        if self.gone or self.finished:
            return {"type": "http.disconnect"}
        body = bytes(self._body)
        self._body.clear()
        self._told = self.complete
        return {"type": "http.request", "body": body, "more_body": not self.complete}

    async def send(self, event: Event) -> None:
        """Take a piece of the answer. What comes after the caller has left goes nowhere."""
        if self.gone:
            return
        if event["type"] == "http.response.start":
            self._begin(event["status"], event["headers"])
            return
        if self._head is None and not self.started:
            raise RuntimeError("http.response.body before http.response.start")
        if self.finished:
            raise RuntimeError("http.response.body after the end of the answer")
        more = event.get("more_body", False)
        self._write(event.get("body", b""), more=more)
        if not more:
            self._end()
        elif self._connection.choked:
            await self._connection.drained()

    def _begin(self, status: int, headers: Any) -> None:
        if self._head is not None or self.started:
            raise RuntimeError("http.response.start twice")
        chunked = status not in _NO_BODY and self.scope["http_version"] != "1.0"
        self._left = None
        head = [STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status, self._connection.date]
        for name, value in headers:
            if _UNFIT(value) or _UNFIT(name):
                raise RuntimeError("a header of the answer holds a line break")
            lowered = name.lower()
            if lowered == b"content-length":
                self._left, chunked = int(value), False
            elif lowered == b"connection" and value.lower() == b"close":
                self.keep_alive = False
                continue
            elif lowered == b"transfer-encoding":
                continue
            head += (name, b": ", value, b"\r\n")
        if self._left is None and not chunked and status not in _NO_BODY:
            self.keep_alive = False
        self._chunked = chunked and self.scope["method"] != "HEAD"
        if chunked:
            head.append(b"transfer-encoding: chunked\r\n")
        self._head = head

    def _write(self, body: bytes, *, more: bool) -> None:
        if self.scope["method"] == "HEAD":
            body = b""
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                self._connection.abort()
                raise RuntimeError("the answer's body is not as long as its content-length says")
        parts = []
        if self._head is not None:
            if not self.keep_alive or not self.complete or self._connection.draining:
                self.keep_alive = False
                self._head.append(b"connection: close\r\n")
            elif self.scope["http_version"] == "1.0":
                self._head.append(b"connection: keep-alive\r\n")
            parts = [*self._head, b"\r\n"]
            self._head = None
            self.started = True
        if not self._chunked:
            parts.append(body)
        else:
            if body:
                parts += (b"%x\r\n" % len(body), body, b"\r\n")
            if not more:
                parts.append(b"0\r\n\r\n")
        self._connection.write(b"".join(parts))

    def _end(self) -> None:
        self.finished = True
        self.wake()
        self._connection.answered(self)
