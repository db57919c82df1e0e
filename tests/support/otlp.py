"""An OTLP/HTTP receiver of spans and metrics that speaks the real protobuf, and backends that are dead in different ways."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, Metric, NumberDataPoint
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True, slots=True)
class Push:
    """One export of metrics: the attributes of its resource, and the metrics by name."""

    resource: dict[str, str]
    metrics: dict[str, Metric]

    def point(self, name: str, **labels: str) -> NumberDataPoint | HistogramDataPoint | None:
        """The first data point of a metric with these attributes, whose dots are written as two underscores here."""
        if (metric := self.metrics.get(name)) is None:
            return None
        wanted = {key.replace("__", "."): value for key, value in labels.items()}.items()
        for point in getattr(metric, str(metric.WhichOneof("data"))).data_points:
            if wanted <= {one.key: one.value.string_value for one in point.attributes}.items():
                found: NumberDataPoint | HistogramDataPoint = point
                return found
        return None


class Receiver:
    """What was received: spans, and the attributes of the resource of the last export; and pushed metrics."""

    def __init__(self) -> None:
        self.url = ""
        self.paths: list[str] = []
        self.spans: list[Span] = []
        self.resource: dict[str, str] = {}
        self.pushes: list[Push] = []
        self.bodies: list[bytes] = []
        self._changed = threading.Condition()

    def take(self, path: str, body: bytes) -> None:
        """Read one export."""
        if path.endswith("/metrics"):
            self._take_metrics(path, body)
            return
        request = ExportTraceServiceRequest.FromString(body)
        with self._changed:
            self.paths.append(path)
            self.bodies.append(body)
            for group in request.resource_spans:
                self.resource = {one.key: one.value.string_value for one in group.resource.attributes}
                for scope in group.scope_spans:
                    self.spans.extend(scope.spans)
            self._changed.notify_all()

    def _take_metrics(self, path: str, body: bytes) -> None:
        request = ExportMetricsServiceRequest.FromString(body)
        with self._changed:
            self.paths.append(path)
            self.bodies.append(body)
            for group in request.resource_metrics:
                resource = {one.key: one.value.string_value for one in group.resource.attributes}
                self.pushes.append(Push(resource, {one.name: one for scope in group.scope_metrics for one in scope.metrics}))
            self._changed.notify_all()

    def wait_for(self, wanted: Callable[[list[Push]], bool], *, seconds: float = 10.0) -> list[Push]:
        """The pushes, once they are what is wanted. Raises AssertionError if they do not become so."""
        with self._changed:
            assert self._changed.wait_for(lambda: wanted(self.pushes), timeout=seconds), f"{len(self.pushes)} pushes, and not that"
            return list(self.pushes)

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
    """A receiver on loopback, which takes nothing under `/refuse/`."""
    received = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["content-length"]))
            refused = self.path.startswith("/refuse/")
            if not refused:
                received.take(self.path, sent)
            body = ExportTraceServiceResponse().SerializeToString()
            self.send_response(400 if refused else 200)
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
