"""A server on loopback that speaks the wire formats of language model providers and does what the prompt says."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.llm_tools import tool_reply
from tests.support.llm_wire import Reply, reply
from tests.support.otlp import serving


@dataclass(slots=True)
class FakeModels:
    """What was asked: the bodies and the headers, in the order they came."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, body: dict[str, Any], headers: dict[str, str]) -> int:
        """Note a question; returns how many there were before."""
        with self._lock:
            self.asked.append(body)
            self.headers.append(headers)
            return len(self.asked) - 1


@contextmanager
def fake_models() -> Iterator[FakeModels]:
    """The server, until the block ends."""
    fake = FakeModels()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # the caller has left
                super().handle()

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            before = fake.take(body, {name.lower(): value for name, value in self.headers.items()})
            self._write(tool_reply(self.path, body) or reply(self.path, body, before=before))

        def _write(self, answer: Reply) -> None:
            self.close_connection = answer.cut or not answer.status
            if not answer.status:
                return
            self.send_response(answer.status)
            length = ("transfer-encoding", "chunked") if answer.streamed else ("content-length", str(len(answer.pieces[0])))
            for name, value in (("content-type", answer.kind), length, *answer.headers):
                self.send_header(name, value)
            self.end_headers()
            for piece in answer.pieces:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if answer.streamed else piece)
                self.wfile.flush()
            if answer.streamed and not answer.cut:
                self.wfile.write(b"0\r\n\r\n")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    with serving(Handler) as url:
        fake.url = url
        yield fake
