from __future__ import annotations

import gzip
import os
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTracePartialSuccess, ExportTraceServiceResponse

from sage_obs.tracing.post import Answer, Endpoint, Manner, manner_of
from tests.support.otlp import serving

PARTIAL = ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(rejected_spans=3, error_message="too old"))


class _Server:
    """Answers posts with what it is told, the last answer again and again."""

    def __init__(self, *answers: tuple[int, bytes, dict[str, str]]) -> None:
        self.answers = list(answers)
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.callers: list[object] = []

    def handler(self) -> type[BaseHTTPRequestHandler]:
        """The class that a server wants."""
        state = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                state.bodies.append(self.rfile.read(int(self.headers["content-length"])))
                state.callers.append(self.client_address)
                state.headers.append({name.lower(): value for name, value in self.headers.items()})
                status, body, headers = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
                self.send_response(status)
                for name, value in {"content-length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Say nothing."""

        return Handler


@contextmanager
def _endpoint(server: _Server, manner: Manner | None = None) -> Iterator[Endpoint]:
    with serving(server.handler()) as url:
        endpoint = Endpoint(f"{url}/v1/traces", manner or Manner(), pause=0.01)
        try:
            yield endpoint
        finally:
            endpoint.close()


OK = (200, ExportTraceServiceResponse().SerializeToString(), {"content-type": "application/x-protobuf"})


@pytest.mark.parametrize(
    ("answers", "verdict", "posts"),
    [
        ([OK], Answer(taken=True), 1),
        ([(200, PARTIAL.SerializeToString(), {})], Answer(taken=True, rejected=3, why="too old"), 1),
        ([(200, b"{}", {})], Answer(taken=True), 1),
        ([(202, b"", {})], Answer(taken=True), 1),
        ([(200, b"<html>hello</html>", {})], Answer(taken=False, why="no answer of OTLP"), 1),
        ([(302, b"", {"location": "/elsewhere"})], Answer(taken=False, why="HTTP 302"), 1),
        ([(400, b"no", {})], Answer(taken=False, why="HTTP 400"), 1),
        ([(500, b"no", {})], Answer(taken=False, why="HTTP 500"), 1),
        ([(503, b"", {}), (429, b"", {"retry-after": "0"}), OK], Answer(taken=True), 3),
        ([(429, b"", {"retry-after": "86400"})], Answer(taken=False, why="HTTP 429"), 1),
        ([(503, b"", {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}), OK], Answer(taken=True), 2),
    ],
    ids=["ok", "partial", "json", "202", "web page", "redirect", "400", "500", "busy", "a day", "a date"],
)
def test_what_an_answer_means(answers: list[tuple[int, bytes, dict[str, str]]], verdict: Answer, posts: int) -> None:
    """Taken, partly taken, worth another try, or lost."""
    server = _Server(*answers)
    with _endpoint(server) as endpoint:
        assert endpoint.post(b"body") == verdict
    assert server.bodies == [b"body"] * posts


@pytest.mark.parametrize(
    ("name", "unpacked"), [("gzip", gzip.decompress), ("deflate", zlib.decompress), ("none", bytes), ("snappy", bytes)]
)
def test_compression(name: str, unpacked: Callable[[bytes], bytes]) -> None:
    """As the variable says; one that OTLP does not know is none."""
    server = _Server(OK)
    with _endpoint(server, manner_of("traces", {"OTEL_EXPORTER_OTLP_COMPRESSION": name})) as endpoint:
        endpoint.post(b"body" * 100)
    assert unpacked(server.bodies[0]) == b"body" * 100
    assert server.headers[0].get("content-encoding") == (name if unpacked is not bytes else None)


def test_headers_of_the_signal_come_before_those_of_all() -> None:
    """Tokens for the endpoint are in the variables that OpenTelemetry names."""
    environ = {"OTEL_EXPORTER_OTLP_HEADERS": "a=1", "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "authorization=Bearer%20x,b=2"}
    server = _Server(OK)
    with _endpoint(server, manner_of("traces", environ)) as endpoint:
        endpoint.post(b"body")
    sent = server.headers[0]
    assert (sent["authorization"], sent["b"], sent.get("a")) == ("Bearer x", "2", None)
    assert sent["content-type"] == "application/x-protobuf"


def test_the_variables_of_tls_and_time() -> None:
    """Certificates and the timeout, one that is no number being the default."""
    environ = {
        "OTEL_EXPORTER_OTLP_CERTIFICATE": "/ca",
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "/crt",
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": "/key",
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "3",
    }
    manner = manner_of("traces", environ)
    assert (manner.verify, manner.certificate, manner.timeout) == ("/ca", ("/crt", "/key"), 3.0)
    assert manner_of("traces", {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}).timeout == 10.0


def test_nobody_at_the_address_is_tried_again_until_the_process_ends() -> None:
    """A collector that restarts loses nothing; a process that ends does not wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    endpoint = Endpoint(f"http://127.0.0.1:{port}", Manner(timeout=60), pause=30)
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(endpoint.post(b"body")))
    thread.start()
    endpoint.hurry()
    thread.join(10)
    assert answers == [Answer(taken=False, why="ConnectionError")]
    endpoint.close()


def test_a_forked_child_has_a_connection_of_its_own() -> None:
    """Parent and child would write into each other's posts."""
    server = _Server(OK)
    with _endpoint(server) as endpoint:
        endpoint.post(b"parent")
        if not (child := os.fork()):
            endpoint.restart_after_fork()
            os._exit(0 if endpoint.post(b"child").taken else 1)
        assert os.waitpid(child, 0)[1] == 0
        endpoint.post(b"parent")
    first, second, third = server.callers
    assert server.bodies == [b"parent", b"child", b"parent"]
    assert (first == third, first == second) == (True, False)


@pytest.mark.system
def test_an_endpoint_that_drips_does_not_hold_the_exports_up() -> None:
    """The answer is read for as long as an export may take, however slowly it comes."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "4000")
            self.end_headers()
            with suppress(OSError):  # whoever waits has left
                for _ in range(100):
                    self.wfile.write(b"\n")
                    time.sleep(0.1)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    with serving(Handler) as url:
        endpoint, began = Endpoint(url, Manner(timeout=1)), time.monotonic()
        endpoint.post(b"body")
        assert time.monotonic() - began < 5
        endpoint.close()
