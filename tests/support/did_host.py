"""A domain that serves DID documents over TLS on loopback, well or badly."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trustme

Answer = Callable[[], tuple[int, dict[str, str], bytes]]


class DidHost:
    """What it answers by path, and which paths it was asked for. A path without an answer is never answered."""

    def __init__(self, port: int, ca_file: Path) -> None:
        self.port = port
        self.ca_file = ca_file
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.released = threading.Event()

    @property
    def did(self) -> str:
        """Its did:web."""
        return f"did:web:localhost%3A{self.port}"

    def serve_json(self, path: str, document: object, *, cache: str = "max-age=60", status: int = 200) -> None:
        """Answer with a document."""
        headers = {"content-type": "application/json", "cache-control": cache}
        self.answers[path] = lambda: (status, headers, json.dumps(document).encode())


@contextmanager
def did_host(folder: Path, *, keeps: bool = False) -> Iterator[DidHost]:
    """A host with a certificate, for `localhost` and `agents.test`, of an authority of its own; `keeps` keeps connections open."""
    authority = trustme.CA()
    ca_file = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "agents.test").configure_cert(context)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1" if keeps else "HTTP/1.0"

        def do_GET(self) -> None:
            host.asked.append(self.path)
            answer = host.answers.get(self.path)
            if answer is None:
                host.released.wait(30)
                return
            status, headers, body = answer()
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: Any) -> None:
            """Callers that leave are none."""

    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    host = DidHost(server.server_address[1], ca_file)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield host
    finally:
        host.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
