"""A small HTTP server in a thread of its own."""

from __future__ import annotations

import errno
import select
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Final

from sage_obs.errors import UnavailableError
from sage_obs.metrics.active import internal_error
from sage_obs.ops.pages import Asked, Page, Pages

_IDLE_SECONDS: Final = 30.0
"""How long a connection may say nothing before its thread is taken back."""

_RETRY_SECONDS: Final = 0.1
"""Between attempts to accept where the process has run out of file descriptors."""


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD from the pages of its server."""

    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    disable_nagle_algorithm: ClassVar[bool] = True
    wbufsize = -1  # one write for headers and body: every system call is a turn to wait for beside a busy event loop
    server: _Server

    def do_GET(self) -> None:
        """Answer with the page."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answer with the page's headers."""
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        if self.server.closed:  # on Linux a request that arrives after SHUT_RD, before this thread has noticed it, can still be read
            self.close_connection = True
            return
        page = self._page()
        self.send_response(page.status)
        for name, value in page.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(page.body)))
        self.end_headers()
        if body:
            self.wfile.write(page.body)

    def _page(self) -> Page:
        headers = {name.lower(): value for name, value in self.headers.items()}
        path, _, query = self.path.partition("?")
        try:
            return self.server.pages.answer(Asked(path, query, headers, str(self.client_address[0]), self._gone))
        except Exception as exc:  # noqa: BLE001 - a page that fails must not end the server
            internal_error(self.server.component, exc)
            return Page(500, b"The page could not be made; the log has the reason.\n", {"content-type": "text/plain"})

    def _gone(self) -> bool:
        """Whether the client has left; what it may have sent beside is left alone. Below TLS, which has no look that takes nothing."""
        if self.server.closed:
            return True
        try:
            poll = select.poll()  # a socket with a timeout waits that long for what it may receive
            poll.register(self.connection, select.POLLIN)
            return bool(poll.poll(0)) and socket.socket.recv(self.connection, 1, socket.MSG_PEEK) == b""
        except (OSError, ValueError):
            return True

    def version_string(self) -> str:
        """Nothing about what serves this."""
        return "sage-obs"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Scrapes and probes are not worth a line."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    pages: Pages
    component: str
    most: int
    tls: ssl.SSLContext | None

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.open: set[socket.socket] = set()
        self.closed = False

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, and know of it; one too many is let go at once."""
        if len(self.open) >= self.most:
            self.shutdown_request(request)
            return
        self.open.add(request)
        try:
            super().process_request(request, client_address)
        except RuntimeError as exc:  # no thread to be had, now; those who accept must outlive it
            self.shutdown_request(request)
            internal_error(self.component, exc)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve it, in its thread; a client that takes its time over the handshake holds nobody else up."""
        if self.tls is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(_IDLE_SECONDS)
        with suppress(OSError), self.tls.wrap_socket(request, server_side=True) as secured:
            self.open.add(secured)
            try:
                super().finish_request(secured, client_address)
            finally:
                self.open.discard(secured)

    def shutdown_request(self, request: Any) -> None:
        """Let go of a connection."""
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a server is for: the component it belongs to, what it serves in words, the prefix of its variables, connections at once."""

    component: str
    serves: str
    variables: str
    most: int


OPS: Final = Purpose("ops", "metrics and health", "SAGE_METRICS", 4096)


class OpsServer:
    """Serves pages on `host` and `port` until it is closed; port 0 takes any free one. `tls` has the server's certificate."""

    def __init__(self, pages: Pages, *, host: str, port: int, purpose: Purpose = OPS, tls: ssl.SSLContext | None = None) -> None:
        self._server = _listen(host, port, purpose)
        self._server.pages = pages
        self._server.component, self._server.most, self._server.tls = purpose.component, purpose.most, tls
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"sage-obs-{purpose.component}", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening and take no more requests on open connections; those under way are answered."""
        self._closed.set()
        self._server.closed = True
        self._server.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.server_close()
        for connection in list(self._server.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RD)

    def abandon(self) -> None:
        """Let go of the inherited sockets in a forked child, where the threads do not exist; the parent's stay open."""
        for one in (self._server.socket, *self._server.open):
            one.close()

    def _work(self) -> None:
        """Accept without polling: a thread that wakes up for nothing takes turns from the application."""
        while not self._closed.is_set():
            try:
                request, address = self._server.get_request()
            except OSError:
                self._closed.wait(_RETRY_SECONDS)
            else:
                self._server.process_request(request, address)


def _listen(host: str, port: int, purpose: Purpose) -> _Server:
    family, address = _address(host, port, purpose)
    kind = type("_Server", (_Server,), {"address_family": family})
    try:
        return kind(address, _Handler)  # type: ignore[no-any-return]
    except OSError as exc:
        taken = exc.errno == errno.EADDRINUSE
        reason = "another process has it" if taken else str(exc.strerror)
        raise UnavailableError(
            f"Cannot serve {purpose.serves} on {host}:{port}: {reason}.", hint=f"Set {purpose.variables}_PORT; 0 takes any free port."
        ) from exc


def _address(host: str, port: int, purpose: Purpose) -> tuple[socket.AddressFamily, Any]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        message = f"Cannot serve {purpose.serves} on {host}: {exc.strerror}."
        raise UnavailableError(message, hint=f"Set {purpose.variables}_HOST.") from exc
    return found[0][0], found[0][4]
