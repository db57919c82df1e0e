"""HTTP/1.1 on one connection: llhttp reads it, an ASGI application answers, and each answer is one write.

uvicorn, which this replaces on the agent's request path, writes twice for each answer and costs more than twice as much (see
benchmarks/README.md and ADR 7). What is refused here never reaches the application.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections import deque
from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import unquote_to_bytes

import httptools
import orjson

from sage_agent.server.answer import STATUS_LINES, Exchange
from sage_agent.server.connections import Application, Connections, Scope

_log = logging.getLogger("sage_agent")
_KINDS: Final = {HTTPStatus.INTERNAL_SERVER_ERROR: "internal", HTTPStatus.REQUEST_TIMEOUT: "timeout"}
_FAREWELL_SECONDS: Final = 1.0
_TAKEN_SECONDS: Final = 5.0
"""How long a caller of TLS is waited for to say farewell, too, and until its last answer is taken to have reached it."""
_LINGER_SECONDS: Final = 2.0
"""How long what a caller still sends after its answer is read and thrown away: closed at once, the answer might never reach it."""


class Connection(asyncio.Protocol):
    """A caller's connection. Requests that are sent before the last one is answered wait their turn."""

    def __init__(self, shared: Connections, app: Application | None = None) -> None:
        self._shared = shared
        self._app = app or shared.app
        self._bounds = shared.bounds
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._parser: Any = None
        self._base: dict[str, Any] = {}
        self._reading: Exchange | None = None
        """The request whose body is being received."""
        self._serving: Exchange | None = None
        self._waiting: deque[Exchange] = deque()
        self._head_bytes = 0
        """Bytes received since something of a body, or the end of a request: a head's, its trailers', or what is said between chunks."""
        self._in_head = False
        self._since = 0.0
        """Since when a head is being received, or nothing is; in the event loop's time."""
        self._paused = False
        self._lingers_until = 0.0
        self._drained: asyncio.Future[None] | None = None
        self._unsent = 0
        self._stalled_since = 0.0
        self.choked = False
        """Whether the caller reads slower than it is answered."""

    @property
    def draining(self) -> bool:
        """Whether no more requests are wanted here."""
        return self._shared.draining

    @property
    def date(self) -> bytes:
        """The date header."""
        return self._shared.date

    @property
    def in_use(self) -> bool:
        """Whether a request is being received or answered."""
        return self._serving is not None or self._in_head or bool(self._waiting)

    @property
    def transport(self) -> asyncio.Transport:
        """What it is written to."""
        return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A caller is here."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)
        self._shared.opened.add(self)
        self._since = self._loop.time()
        extra = transport.get_extra_info
        tls = extra("ssl_object")
        client, server = extra("peername"), extra("sockname")
        self._base = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "scheme": "http" if tls is None else "https",
            "client": tuple(client[:2]) if client else None,
            "server": tuple(server[:2]) if server else None,
            "root_path": "",
        }
        if tls is not None:
            self._base["extensions"] = {"tls": {"client_cert": tls.getpeercert(binary_form=True)}}

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller has left."""
        del exc
        self._shared.opened.discard(self)
        for exchange in (self._serving, self._reading, *self._waiting):
            if exchange is not None:
                exchange.gone = True
                exchange.wake()
        self._waiting.clear()
        self.resume_writing()

    def pause_writing(self) -> None:
        """The caller reads slowly."""
        self.choked = True

    def resume_writing(self) -> None:
        """It has read."""
        self.choked = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._go_on()

    async def drained(self) -> None:
        """Wait until the caller has read, or is gone."""
        if self.choked:
            if self._drained is None or self._drained.done():
                self._drained = self._loop.create_future()
            await asyncio.shield(self._drained)

    def data_received(self, data: bytes) -> None:
        """Bytes are here."""
        if self._lingers_until:
            return
        self._head_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserCallbackError as exc:
            self._refuse_callback(exc)
        except httptools.HttpParserError:
            self.refuse(HTTPStatus.BAD_REQUEST, "This is not HTTP/1.1 as it is written.")
        else:
            if self._head_bytes > self._bounds.head_bytes and (self._in_head or self._reading is not None):
                self._refuse(self._too_long())
            elif self._is_full():
                self._pause()

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data[upgrade.args[0] :])

    # What llhttp calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head = True
        self._since = self._loop.time()
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._said = 0
        self._hosts = 0
        self._expects_continue = False

    def on_url(self, url: bytes) -> None:
        """A piece of its target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header. What comes after a body is no part of the head that was believed before it (RFC 9110, section 6.5.1)."""
        if not self._in_head:
            return
        name = name.lower()
        if name == b"host":
            self._hosts += 1
        elif name == b"expect" and value.lower() == b"100-continue":
            self._expects_continue = True
        self._said += len(name) + len(value)
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Its head is here: it can be answered."""
        self._in_head = False
        self._head_bytes = 0
        self._check_head()
        scope = self._scope()
        expects_continue = self._expects_continue and scope["http_version"] == "1.1"
        exchange = Exchange(self, scope, keep_alive=self._parser.should_keep_alive(), expects_continue=expects_continue)
        self._reading = exchange
        if self._serving is None and not self.choked:
            self._serve(exchange)
        else:
            self._waiting.append(exchange)

    def on_body(self, body: bytes) -> None:
        """A piece of its body."""
        self._head_bytes = 0
        if self._reading is not None and not self._reading.finished:
            self._reading.feed(body)

    def on_message_complete(self) -> None:
        """All of it is here, unless another protocol is asked for: then its body is still to come."""
        if self._parser.should_upgrade():
            return
        self._head_bytes = 0
        if (exchange := self._reading) is not None:
            exchange.complete = True
            exchange.wake()
            self._reading = None

    def _check_head(self) -> None:
        if len(self._headers) > self._bounds.headers:
            raise _RefusedError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"There are more than {self._bounds.headers} headers.")
        if self._said + len(self._url) > self._bounds.head_bytes:
            raise self._too_long()
        version = self._parser.get_http_version()
        if version not in {"1.0", "1.1"}:
            raise _RefusedError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 and HTTP/1.0 are spoken here.")
        if self._hosts != 1 and (self._hosts or version != "1.0"):
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "There must be one Host header.")
        if version == "1.0" and any(name == b"transfer-encoding" for name, _ in self._headers):
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "HTTP/1.0 has no Transfer-Encoding.")
        if len(self._waiting) >= self._bounds.pipelined_most:
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "Too many requests are sent before their answers are read.")

    def _too_long(self) -> _RefusedError:
        return _RefusedError(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"The request's head is longer than {self._bounds.head_bytes} bytes."
        )

    def _scope(self) -> Scope:
        raw = self._url
        if not raw.startswith(b"/"):
            raw = _origin_form(raw, self._parser.get_method())
        path, _, query = raw.partition(b"?")
        try:
            text = unquote_to_bytes(path).decode() if b"%" in path else path.decode("ascii")
        except UnicodeDecodeError:
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "The path is not UTF-8.") from None
        return {
            **self._base,
            "http_version": self._parser.get_http_version(),
            "method": self._parser.get_method().decode("ascii"),
            "path": text,
            "raw_path": path,
            "query_string": query,
            "headers": self._headers,
        }

    def _serve(self, exchange: Exchange) -> None:
        self._serving = exchange
        task = self._loop.create_task(self._run(exchange))
        self._shared.tasks.add(task)
        task.add_done_callback(self._shared.tasks.discard)

    async def _run(self, exchange: Exchange) -> None:
        try:
            await self._app(exchange.scope, exchange.receive, exchange.send)
        except Exception:  # noqa: BLE001 - it answers every failure itself; this one is its defect
            _log.exception("the application failed")
        finally:
            if not exchange.finished and not exchange.gone:
                self._abandoned(exchange)

    def _abandoned(self, exchange: Exchange) -> None:
        """The application has ended without an answer, or in the middle of one."""
        exchange.finished = True
        exchange.wake()
        if exchange.started:
            self.abort()
        else:
            self.refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "The agent failed to answer; its log says why.")

    def answered(self, exchange: Exchange) -> None:
        """The answer to a request is written: the next one's turn, or the end."""
        self._since = self._loop.time()
        if not exchange.keep_alive or not exchange.complete:
            self.end(linger=not exchange.complete)
            return
        self._serving = None
        self._go_on()

    def _go_on(self) -> None:
        """Answer the next request and read more of them, unless the caller has yet to read what it was answered."""
        if self._waiting and self._serving is None and not self.choked:
            self._serve(self._waiting.popleft())
        if not self._is_full():
            self._resume()

    def read_on(self, exchange: Exchange) -> None:
        """A request waits for more of its body, or for its caller to leave."""
        if exchange is self._reading or not self._is_full() or exchange.complete:
            self._resume()

    def _is_full(self) -> bool:
        reading = self._reading
        if self.choked or len(self._waiting) >= self._bounds.pipelined:
            return True
        return reading is not None and reading.buffered > self._bounds.buffered

    def _pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        """Read on; a head that was begun has its time from now, as the rest of it was not wanted before."""
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._since = self._loop.time()
            self._transport.resume_reading()

    def _stay(self, rest: bytes) -> None:
        """Another protocol was asked for. The request is answered in this one (RFC 9110, section 7.8), and is the last.

        Common clients ask for h2c with every request, bodies and all. llhttp reads no further, so that another reads the body.
        """
        exchange = self._reading
        if exchange is None:
            return
        exchange.keep_alive = False
        framing = [name + b": " + value + b"\r\n" for name, value in self._headers if name in {b"content-length", b"transfer-encoding"}]
        self._parser = httptools.HttpRequestParser(_Rest(self))
        self._parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(framing) + b"\r\n" + rest)

    def _refuse_callback(self, error: httptools.HttpParserCallbackError) -> None:
        cause = error.__context__
        if isinstance(cause, _RefusedError):
            self._refuse(cause)
        else:
            _log.error("a request could not be read", exc_info=cause)
            self.refuse(HTTPStatus.BAD_REQUEST, "This request cannot be read.")

    def _refuse(self, refused: _RefusedError) -> None:
        self.refuse(refused.status, refused.message)

    def refuse(self, status: HTTPStatus, message: str) -> None:
        """Answer in place of the application, and close. An answer under way to an earlier request comes first, and is the last."""
        serving = self._serving
        if serving is not None and serving.complete and not serving.finished:
            serving.keep_alive = False
            self._reading = None
            self._waiting.clear()
            self._lingers_until = math.inf
            return
        if serving is not None and not serving.finished:
            serving.gone = True
            serving.wake()
        if serving is not None and serving.started:
            self.abort()
            return
        self.write(_refusal(status, message, self._shared.date))
        self.end(linger=True)

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def abort(self) -> None:
        """Break the connection off, so that nobody takes what was written for the whole."""
        self._transport.abort()

    def end(self, *, linger: bool) -> None:
        """Close once everything is written; where the caller may still be sending, what it sends is thrown away for a while."""
        self._serving, self._reading = None, None
        self._waiting.clear()
        if self._transport.is_closing():
            return
        if not linger:
            self._transport.close()
            return
        self._lingers_until = self._loop.time() + _LINGER_SECONDS
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._resume()

    def shutdown(self) -> None:
        """Close now if nothing is being answered, else after the answer."""
        if self._serving is None:
            self._transport.close()
            if self._base["scheme"] == "https":  # an idle caller does not look, and TLS would wait for its answer
                idle = self._loop.time() - self._since
                self._loop.call_later(max(_FAREWELL_SECONDS, _TAKEN_SECONDS - idle), self._transport.abort)
        else:
            self._serving.keep_alive = False

    def tick(self, now: float) -> None:
        """Whether it has taken too long: to send a head, to ask something at all, or to read its answer and go."""
        if self._stalls(now) or (self._lingers_until and now >= self._lingers_until):
            self._transport.abort()
        elif self._lingers_until:
            pass
        elif self._in_head:
            if not self._paused and now - self._since > self._bounds.head_seconds:
                self.refuse(HTTPStatus.REQUEST_TIMEOUT, "The request's head did not arrive in time.")
        elif self._serving is None and now - self._since > self._bounds.keep_alive:
            self._transport.close()

    def _stalls(self, now: float) -> bool:
        """Whether the caller has taken nothing of what is sent to it for too long."""
        unsent = self._transport.get_write_buffer_size()
        if unsent == 0 or unsent != self._unsent:
            self._unsent, self._stalled_since = unsent, now
        return now - self._stalled_since > self._bounds.stalled


class _Rest:
    """Reads the rest of a request whose head is known, for a connection, and nothing after it."""

    def __init__(self, connection: Connection) -> None:
        self.on_body = connection.on_body
        self.on_message_complete = connection.on_message_complete


class _RefusedError(Exception):
    """A request that is not handed to the application."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def _origin_form(target: bytes, method: bytes) -> bytes:
    """The path and query of a target that is not written as one (RFC 9112, section 3.2)."""
    if target == b"*" and method == b"OPTIONS":
        return b"/*"
    try:
        parsed = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        parsed = None
    if parsed is None or parsed.schema not in {b"http", b"https"}:
        raise _RefusedError(HTTPStatus.BAD_REQUEST, "The request's target is not a path.")
    query = b"?" + parsed.query if parsed.query else b""
    return bytes((parsed.path or b"/") + query)


def _refusal(status: HTTPStatus, message: str, date: bytes) -> bytes:
    """A whole answer, in the form of every other error."""
    request_id = f"req-{secrets.token_hex(8)}"
    _log.info("request refused", extra={"status": int(status), "reason": message, "request_id": request_id})
    kind = _KINDS.get(status, "invalid_request")
    body = orjson.dumps({"error": {"type": kind, "message": message, "request_id": request_id}})
    head = b"content-type: application/json\r\nx-request-id: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (
        request_id.encode(),
        len(body),
    )
    return STATUS_LINES[status] + date + head + body
