"""A small HTTP server in a thread of its own."""

from __future__ import annotations

import errno
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Final

from sage_obs.errors import UnavailableError
from sage_obs.metrics.active import internal_error
from sage_obs.ops.pages import Page, Pages

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
        try:
            return self.server.pages.get(self.path.partition("?")[0], headers)
        except Exception as exc:  # noqa: BLE001 - a page that fails must not end the server
            internal_error("ops", exc)
            return Page(500, b"The page could not be made; the log has the reason.\n", {"content-type": "text/plain"})

    def version_string(self) -> str:
        """Nothing about what serves this."""
        return "sage-obs"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Scrapes and probes are not worth a line."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    pages: Pages

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.open: set[socket.socket] = set()
        self.closed = False

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, and know of it."""
        self.open.add(request)
        try:
            super().process_request(request, client_address)
        except RuntimeError as exc:  # no thread to be had, now; those who accept must outlive it
            self.shutdown_request(request)
            internal_error("ops", exc)

    def shutdown_request(self, request: Any) -> None:
        """Let go of a connection."""
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


class OpsServer:
    """Serves pages on `host` and `port` until it is closed; port 0 takes any free one."""

    def __init__(self, pages: Pages, *, host: str, port: int) -> None:
        self._server = _listen(host, port)
        self._server.pages = pages
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="sage-obs-ops", daemon=True)
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


def _listen(host: str, port: int) -> _Server:
    family, address = _address(host, port)
    kind = type("_Server", (_Server,), {"address_family": family})
    try:
        return kind(address, _Handler)  # type: ignore[no-any-return]
    except OSError as exc:
        taken = exc.errno == errno.EADDRINUSE
        reason = "another process has it" if taken else str(exc.strerror)
        raise UnavailableError(
            f"Cannot serve metrics and health on {host}:{port}: {reason}.", hint="Set SAGE_METRICS_PORT; 0 takes any free port."
        ) from exc


def _address(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        raise UnavailableError(f"Cannot serve metrics and health on {host}: {exc.strerror}.", hint="Set SAGE_METRICS_HOST.") from exc
    return found[0][0], found[0][4]
