"""An OTLP/HTTP receiver that speaks the real protobuf, and backends that are dead in different ways."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Receiver:
    """What was received: spans, and the attributes of the resource of the last export."""

    def __init__(self) -> None:
        self.url = ""
        self.paths: list[str] = []
        self.spans: list[Span] = []
        self.resource: dict[str, str] = {}
        self._changed = threading.Condition()

    def take(self, path: str, body: bytes) -> None:
        """Read one export."""
        request = ExportTraceServiceRequest.FromString(body)
        with self._changed:
            self.paths.append(path)
            for group in request.resource_spans:
                self.resource = {one.key: one.value.string_value for one in group.resource.attributes}
                for scope in group.scope_spans:
                    self.spans.extend(scope.spans)
            self._changed.notify_all()

    def wait(self, count: int, *, seconds: float = 10.0) -> list[Span]:
        """The spans, once there are `count`. Raises AssertionError if they do not come."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.spans) >= count, timeout=seconds), f"{len(self.spans)} spans of {count}"
            return list(self.spans)


def attributes(span: Span) -> dict[str, Any]:
    """A span's attributes as Python values."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value") for one in span.attributes}


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver on loopback."""
    received = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.take(self.path, self.rfile.read(int(self.headers["content-length"])))
            body = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    with serving(Handler) as url:
        received.url = url
        yield received


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """An HTTP server on loopback; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def dead_backend(kind: str) -> Iterator[str]:
    """An address that refuses connections (`refused`), or takes them and never answers (`blackhole`)."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        if kind == "blackhole":
            yield url
            return
    yield url
