"""The preview's HTTP server: a page, the boards, and a narrow way to Prometheus.

It listens on loopback and answers only requests that come under a loopback name and from its own page, so that no other page a
browser shows can ask through it (DNS rebinding, cross-site requests). Of Prometheus's API only what reads series is passed on.
"""

from __future__ import annotations

import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from sage_obs.errors import SageObsError, UnavailableError

if TYPE_CHECKING:
    import httpx

HOST: Final = "127.0.0.1"
PASSED_ON: Final = re.compile(r"/api/v1/(query|query_range|series|labels|label/[A-Za-z_][A-Za-z0-9_]*/values)")
"""The paths of Prometheus's API that reach it."""
_PAGE: Final = "preview.html"
_STATIC: Final = {
    _PAGE: "text/html; charset=utf-8",
    "preview.css": "text/css; charset=utf-8",
    "preview.js": "text/javascript; charset=utf-8",
    "panels.js": "text/javascript; charset=utf-8",
    "format.js": "text/javascript; charset=utf-8",
    "uPlot.iife.min.js": "text/javascript; charset=utf-8",
    "uPlot.min.css": "text/css; charset=utf-8",
}
_NAMES: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})
_MOST_BYTES: Final = 256 * 1024
"""The longest request body: a query of Prometheus is much shorter."""
_TIMEOUT: Final = 30.0
_MOST_SECONDS: Final = 30
_KINDS: Final = frozenset({"cpu", "wall", "heap", "tasks", "block", "mutex"})
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_JSON: Final = "application/json"

Profiles = Callable[[str, int], str]
"""Gives the collapsed stacks of a kind of profile (cpu, wall, heap, tasks, …) over so many seconds. Raises SageObsError."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What is shown: boards by uid, the Prometheus they ask, and where their flame graphs come from, if anywhere."""

    boards: Mapping[str, Mapping[str, Any]]
    prometheus: str
    client: httpx.Client
    profiles: Profiles | None = None


class _RefusedError(Exception):
    """A request that is not answered, and how."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    """One connection of the page."""

    server_version = "sage-obs"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 60

    def __init__(self, preview: Preview, *args: Any) -> None:
        self._preview = preview
        super().__init__(*args)

    def do_GET(self) -> None:
        """The page, its parts, boards, profiles, and values of labels."""
        self._guarded(self._get)

    def do_POST(self) -> None:
        """Queries for Prometheus."""
        self._guarded(self._post)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """The page's requests are no news."""

    def _guarded(self, answer: Callable[[urllib.parse.SplitResult], None]) -> None:
        try:
            self._check_origin()
            answer(urllib.parse.urlsplit(self.path))
        except _RefusedError as exc:
            self._fail(exc.status, str(exc))
        except SageObsError as exc:
            self._fail(HTTPStatus.BAD_GATEWAY, str(exc))
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _check_origin(self) -> None:
        host = self.headers.get("Host", "")
        if host.rpartition(":")[0] not in _NAMES:
            raise _RefusedError(HTTPStatus.FORBIDDEN, "This preview answers under the name localhost only.")
        origin = self.headers.get("Origin")
        if origin not in {None, f"http://{host}"} or self.headers.get("Sec-Fetch-Site", "none") not in {"same-origin", "none"}:
            raise _RefusedError(HTTPStatus.FORBIDDEN, "This preview answers its own page only.")

    def _get(self, url: urllib.parse.SplitResult) -> None:
        path = urllib.parse.unquote(url.path)
        if path in {"/", "/d"} or path.startswith("/d/"):
            self._static(_PAGE)
        elif path.startswith("/static/") and path.removeprefix("/static/") in _STATIC:
            self._static(path.removeprefix("/static/"))
        elif path == "/boards.json":
            self._send(_JSON, json.dumps(self._contents()).encode())
        elif path.startswith("/boards/") and path.removeprefix("/boards/") in self._preview.boards:
            self._send(_JSON, json.dumps(self._preview.boards[path.removeprefix("/boards/")]).encode())
        elif path.startswith("/profiles/"):
            self._profile(path.removeprefix("/profiles/"), urllib.parse.parse_qs(url.query))
        elif PASSED_ON.fullmatch(path) and path.endswith("/values"):
            self._ask("GET", path, params=urllib.parse.parse_qsl(url.query))
        else:
            raise _RefusedError(HTTPStatus.NOT_FOUND, "There is no such page.")

    def _post(self, url: urllib.parse.SplitResult) -> None:
        if not PASSED_ON.fullmatch(url.path) or url.path.endswith("/values"):
            raise _RefusedError(HTTPStatus.NOT_FOUND, "This is not passed on to Prometheus.")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > _MOST_BYTES:
            raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The query is too long, or its length is not said.")
        text = self.rfile.read(int(length)).decode("utf-8", "replace")
        self._ask("POST", url.path, params=urllib.parse.parse_qsl(text, keep_blank_values=True))

    def _contents(self) -> dict[str, Any]:
        boards = [{"uid": uid, "title": board.get("title") or uid} for uid, board in self._preview.boards.items()]
        return {"boards": boards, "prometheus": self._preview.prometheus, "profiles": self._preview.profiles is not None}

    def _static(self, name: str) -> None:
        self._send(_STATIC[name], (resources.files(__package__) / "static" / name).read_bytes())

    def _profile(self, kind: str, query: Mapping[str, list[str]]) -> None:
        seconds = query.get("seconds", ["2"])[0]
        if self._preview.profiles is None or kind not in _KINDS or not re.fullmatch(r"[0-9]{1,2}", seconds):
            raise _RefusedError(HTTPStatus.NOT_FOUND, "There are no profiles here: start the preview with --profiles.")
        self._send("text/plain; charset=utf-8", self._preview.profiles(kind, min(int(seconds), _MOST_SECONDS)).encode())

    def _ask(self, method: str, path: str, *, params: list[tuple[str, str]]) -> None:
        """Pass a question on to Prometheus and its answer back."""
        import httpx

        url = self._preview.prometheus.rstrip("/") + path
        form = urllib.parse.urlencode(params)
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if method == "POST" else {}
        try:
            answer = self._preview.client.request(
                method, url if method == "POST" else f"{url}?{form}", content=form if method == "POST" else None, headers=headers,
                timeout=_TIMEOUT,
            )  # fmt: skip
        except httpx.HTTPError as exc:
            reason = str(exc) or type(exc).__name__
            raise UnavailableError(f"Cannot reach Prometheus at {self._preview.prometheus} ({reason}).") from exc
        self._send(_JSON, answer.content, HTTPStatus(answer.status_code) if answer.status_code in _STATUSES else HTTPStatus.BAD_GATEWAY)

    def _fail(self, status: HTTPStatus, message: str) -> None:
        self.close_connection = True  # the request's body may not have been read, and would be taken for the next request
        self._send(_JSON, json.dumps({"status": "error", "error": message}).encode(), status)

    def _send(self, kind: str, body: bytes, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        if self.close_connection:
            self.send_header("Connection", "close")
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


_STATUSES: Final = frozenset({200, 400, 422, 503})
"""What Prometheus answers with; anything else is not Prometheus."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True


@contextmanager
def serving(preview: Preview, *, port: int) -> Iterator[str]:
    """Serve while the block lasts; yields the page's address. Port 0 takes any free one. Raises UnavailableError where it is taken."""
    try:
        server = _Server((HOST, port), partial(_Handler, preview))
    except OSError as exc:
        raise UnavailableError(f"Cannot listen on port {port}: {exc.strerror or exc}.", hint="Choose another with --port, or 0.") from exc
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
