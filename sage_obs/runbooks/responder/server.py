"""The responder's HTTP server: the webhook, health, metrics, and the runbooks' pages."""

from __future__ import annotations

import hmac
import html
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from sage_obs.conventions import METRICS_PATH
from sage_obs.errors import UnavailableError
from sage_obs.runbooks import loader, page
from sage_obs.runbooks.responder.alerts import parse
from sage_obs.runbooks.responder.counters import CONTENT_TYPE, Counters
from sage_obs.runbooks.responder.inbox import Inbox

MAX_BODY: Final = 1024 * 1024
"""The largest notification that is read, in bytes."""
_READ_TIMEOUT: Final = 10.0
"""Seconds for a body as a whole, and for any other single read."""
_LINGER: Final = 1.0
"""Seconds for which the rest of a refused request is thrown away."""
_HTML: Final = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"


def _says(code: HTTPStatus, /, **body: Any) -> Answer:
    return Answer(code, json.dumps(body).encode() + b"\n")


_UNAUTHORIZED: Final = _says(HTTPStatus.UNAUTHORIZED, error="the bearer token is missing or wrong")


@dataclass(frozen=True, slots=True)
class Desk:
    """What the answers are made from. `token` is the bearer token that a notification must show, "" for none.

    `news` is called after a notice was kept, `alive` says whether the worker still works, `clock` gives Unix time.
    """

    inbox: Inbox
    counters: Counters
    token: str
    news: Callable[[], None]
    alive: Callable[[], bool]
    clock: Callable[[], float]

    def admits(self, authorization: str) -> bool:
        """Whether a request with this `Authorization` may bring alerts."""
        return not self.token or hmac.compare_digest(authorization.encode(), f"Bearer {self.token}".encode())

    def alerts(self, authorization: str, body: bytes) -> Answer:
        """Keep a notification, then say so; an answer other than 202 makes Alertmanager send it again."""
        if not self.admits(authorization):
            return _UNAUTHORIZED
        try:
            notice = parse(body, now=self.clock())
        except ValueError as exc:
            return _says(HTTPStatus.BAD_REQUEST, error=str(exc))
        try:
            new = self.inbox.receive(notice, at=self.clock())
        except OSError as exc:
            return _says(HTTPStatus.SERVICE_UNAVAILABLE, error=f"the notice cannot be kept ({exc.strerror})")
        self.news()
        return _says(HTTPStatus.ACCEPTED, accepted=new, key=notice.key)

    def get(self, path: str) -> Answer:
        """Health, metrics, pages."""
        if path in ("/health/live", "/health/ready"):
            alive = self.alive()
            return _says(HTTPStatus.OK if alive else HTTPStatus.SERVICE_UNAVAILABLE, status="healthy" if alive else "unhealthy")
        if path == METRICS_PATH:
            return Answer(HTTPStatus.OK, self.counters.exposition(), CONTENT_TYPE)
        if path.startswith("/runbooks/"):
            return _page(path.removeprefix("/runbooks/").removesuffix(".md"))
        return _says(HTTPStatus.NOT_FOUND, error="there is nothing here")


def _page(slug: str) -> Answer:
    runbook = loader.catalogue().get(slug)
    if runbook is None:
        return _says(HTTPStatus.NOT_FOUND, error="there is no such runbook", runbooks=list(loader.names()))
    text = f"<!doctype html><meta charset=utf-8><title>{html.escape(runbook.title)}</title><pre>{html.escape(page.render(runbook))}</pre>\n"
    return Answer(HTTPStatus.OK, text.encode(), _HTML)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _READ_TIMEOUT
    server: _Server

    def do_GET(self) -> None:
        self._send(self.server.desk.get(self.path.partition("?")[0]))

    def do_POST(self) -> None:
        if self.path.partition("?")[0] != "/alerts":
            self._refuse(_says(HTTPStatus.NOT_FOUND, error="alerts go to /alerts"))
            return
        authorization = self.headers.get("Authorization", "")
        if not self.server.desk.admits(authorization):
            self._refuse(_UNAUTHORIZED)
            return
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            self._refuse(_says(HTTPStatus.LENGTH_REQUIRED, error="Content-Length is needed"))
            return
        if len(length) > len(str(MAX_BODY)) or int(length) > MAX_BODY:
            self._refuse(_says(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, error=f"at most {MAX_BODY} bytes"))
            return
        self._send(self.server.desk.alerts(authorization, self._body(int(length))))

    def _body(self, length: int) -> bytes:
        """The body, or what came of it before the peer closed. Raises TimeoutError where it takes too long as a whole."""
        body, deadline = b"", time.monotonic() + self.server.read_timeout
        while len(body) < length:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the body came too slowly")
            self.connection.settimeout(left)
            part = self.rfile.read1(length - len(body))
            if not part:
                break
            body += part
        self.connection.settimeout(self.timeout)
        return body

    def _refuse(self, answer: Answer) -> None:
        """Answer without having read the body, so the connection cannot be used again."""
        self.close_connection = True
        self._send(answer)
        self._linger()

    def _linger(self) -> None:
        """Let the peer read the answer: to close on bytes that were not read resets the connection, and the answer with it."""
        deadline = time.monotonic() + _LINGER
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_LINGER)
            while time.monotonic() < deadline and self.connection.recv(65536):
                pass

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *_: object) -> None:
        """Requests are not logged: alerts are, by the inbox and the runs."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], desk: Desk, read_timeout: float) -> None:
        self.desk = desk
        self.read_timeout = read_timeout
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that went away is no trouble of ours; anything else is printed."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def server_bind(self) -> None:
        """Without the look-up of the host's name that the standard library makes."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class Front:
    """The server in a thread of its own. `port` 0 takes any free one; a body must come within `read_timeout` seconds.

    Raises UnavailableError where the port is taken.
    """

    def __init__(self, desk: Desk, *, host: str, port: int, read_timeout: float = _READ_TIMEOUT) -> None:
        try:
            self._server = _Server((host, port), desk, read_timeout)
        except OSError as exc:
            raise UnavailableError(f"Cannot listen on {host}:{port} ({exc.strerror}).", hint="Choose another with --port.") from exc
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="responder http", daemon=True
        )

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self._server.server_name}:{self._server.server_port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop accepting and return."""
        self._server.shutdown()
        self._server.server_close()
