from __future__ import annotations

import socket
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import django
import gunicorn.config
import httpx
import pytest

from sage_obs.conventions import ERRORS, REQUEST_OVERHEAD, REQUESTS, REQUESTS_IN_FLIGHT, TIME_TO_FIRST_BYTE
from tests.support.otlp import attributes, receiver, serving
from tests.support.services import Service, running, wait_until

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
FLASK = """\
import logging
import os
import time

import sage_obs
from flask import Flask, jsonify, request, send_file, stream_with_context

app = Flask("shop", static_folder=None)
log = logging.getLogger("service")


@app.get("/hello/<name>")
def hello(name):
    log.info("hello")
    return f"hello {name}"


@app.post("/rpc")
def rpc():
    return jsonify(jsonrpc="2.0", error={"code": -32603})


@app.get("/stream/<int:count>")
def stream(count):
    def pieces():
        for number in range(count):
            log.info("piece")
            yield f"{number} "
            time.sleep(0.01)

    return stream_with_context(pieces())


@app.get("/broken/<x>")
def broken(x):
    raise RuntimeError("broken")


@app.get("/file")
def file():
    return send_file(__file__)


@app.get("/ask/<what>")
def ask(what):
    import requests

    with requests.Session() as session:
        session.trust_env = False
        session.get(os.environ["UPSTREAM"])

    def pieces():
        with sage_obs.llm_call("openai", "gpt-4o"):
            yield "a"
        yield "b"

    return stream_with_context(pieces())


@app.get("/server-log/<name>")
def server_log(name):
    logging.getLogger(name).warning("from the server")
    return ""


@app.get("/loguru")
def loguru():
    from loguru import logger

    logger.bind(colour="red").info("from loguru")
    return ""


@app.get("/structlog")
def events():
    import structlog

    structlog.get_logger().info("from structlog", colour="red")
    return ""


@app.get("/model")
def model():
    with sage_obs.llm_call("openai", "gpt-4o"):
        time.sleep(0.5)
    return {"ok": True}


sage_obs.instrument("shop", sampling_rate=1.0)

if __name__ == "__main__":
    app.run(port=int(os.environ["PORT"]), threaded=True)
"""
NO_SOCKET = ("--no-control-socket",) if hasattr(gunicorn.config, "ControlSocketDisable") else ()
GUNICORN = ("-m", "gunicorn", "service:app", "--bind", "127.0.0.1:{port}", "--workers", "1", "--access-logfile", "-", *NO_SOCKET)
GRANIAN = ("-m", "granian", "service:app", "--port", "{port}", "--workers", "1", "--access-log", "--interface")
FLASK_SERVERS = {
    "werkzeug": ("service.py",),
    "gunicorn-sync": GUNICORN,
    "gunicorn-gthread": (*GUNICORN, "--worker-class", "gthread", "--threads", "2"),
    "granian": (*GRANIAN, "wsgi"),
}
DJANGO = """\
import asyncio
import logging
import os
import time

import django
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import include, path, re_path

log = logging.getLogger("service")


def hello(request, name):
    log.info("hello")
    return HttpResponse(f"hello {name}")


def rpc(request):
    return JsonResponse({"jsonrpc": "2.0", "error": {"code": -32603}})


def stream(request, count):
    def pieces():
        for number in range(count):
            yield f"{number} "
            time.sleep(0.01)

    async def pieces_async():
        for number in range(count):
            yield f"{number} "
            await asyncio.sleep(0.01)

    return StreamingHttpResponse(pieces_async() if hasattr(request, "scope") else pieces())


def broken(request, x):
    raise RuntimeError("broken")


def file(request):
    return FileResponse(open(__file__, "rb"))


def model(request):
    import sage_obs

    with sage_obs.llm_call("openai", "gpt-4o"):
        time.sleep(0.5)
    return HttpResponse("ok")


def denied(request, x):
    raise PermissionDenied


urlpatterns = [
    path("", include([path("hello/<name>", hello), path("stream/<int:count>", stream)])),
    path("rpc", rpc),
    path("broken/<x>", broken),
    path("file", file),
    path("model", model),
    re_path("^denied/(?P<x>[0-9]+)$", denied),
]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x", LOGGING_CONFIG=None, MIDDLEWARE=[])
django.setup()

import sage_obs

sage_obs.instrument("shop", sampling_rate=1.0)

if os.environ.get("ASGI"):
    from django.core.asgi import get_asgi_application

    app = get_asgi_application()
else:
    from django.core.wsgi import get_wsgi_application

    app = get_wsgi_application()

if __name__ == "__main__":
    import wsgiref.simple_server

    wsgiref.simple_server.make_server("127.0.0.1", int(os.environ["PORT"]), app).serve_forever()
"""
DJANGO_SERVERS = {
    "wsgiref": ("service.py",),
    "gunicorn": GUNICORN,
    "uvicorn": ("-m", "uvicorn", "service:app", "--port", "{port}"),
    "granian": (*GRANIAN, "asgi"),
}


def _serve(service: Service, client: httpx.Client) -> None:
    answer = client.get(f"{service.url}/hello/bob", headers={"x-request-id": "r1"})
    assert (answer.text, answer.headers["x-request-id"]) == ("hello bob", "r1")
    client.get(f"{service.url}/hello/ann")
    assert client.post(f"{service.url}/rpc").status_code == 200
    assert client.get(f"{service.url}/stream/3").text == "0 1 2 "
    assert client.get(f"{service.url}/broken/1").status_code == 500
    assert "import sage_obs" in client.get(f"{service.url}/file").text
    assert client.get(f"{service.url}/model").status_code == 200
    assert client.get(f"{service.url}/nowhere/7").status_code == 404
    assert client.get(f"{service.url}/health/live").json() == {"name": "liveness", "status": "healthy"}
    assert client.get(f"{service.url}/health/ready").json()["status"] == "healthy"
    assert client.get(f"{service.url}/metrics").status_code == 404


def _check(service: Service, *, hello: str, stream: str, broken: str) -> None:
    service.reaches(8, REQUESTS)
    for operation, outcome, count in (
        (hello, "success", 2),
        ("POST /rpc", "server_error", 1),
        (stream, "success", 1),
        (broken, "server_error", 1),
        ("GET /file", "success", 1),
        ("GET /model", "success", 1),
        ("unmatched", "client_error", 1),
    ):
        assert service.value(REQUESTS, operation=operation, outcome=outcome, protocol="http") == count, operation
    assert service.value(REQUESTS_IN_FLIGHT) == 0
    assert service.value(REQUEST_OVERHEAD, suffix="_bucket", operation="GET /model", le="0.4") == 1
    assert service.value(TIME_TO_FIRST_BYTE, suffix="_count", operation=stream) == 1
    assert service.value(TIME_TO_FIRST_BYTE, suffix="_count", operation=hello) == 0
    assert service.line("hello")["request_id"] == "r1"
    access = service.line("GET /hello/bob 200")
    assert (access["request_id"], access["operation"], access["logger"]) == ("r1", hello, "sage_obs.access")
    failed = service.line("GET /broken/1 500")
    tracebacks = [line for line in service.lines() if line.get("error.type") == "RuntimeError"]
    assert [line["request_id"] for line in tracebacks] == [failed["request_id"]]


def _leave(service: Service, stream: str) -> None:
    """Take the first piece of a long stream and hang up."""
    with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2]))) as connection:
        connection.sendall(b"GET /stream/2000 HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: connection.recv(4096))
    service.reaches(1, REQUESTS, operation=stream, outcome="cancelled")
    assert service.value(ERRORS, error_type="cancelled") == 1
    assert service.value(REQUESTS_IN_FLIGHT) == 0


@pytest.mark.parametrize("server", FLASK_SERVERS)
def test_flask_is_measured_by_its_rules(tmp_path: Path, server: str) -> None:
    """Every kind of answer under real servers: counts, templates, ids, streams, a caller who leaves, probes on the own port."""
    with running(tmp_path, FLASK, *FLASK_SERVERS[server]) as service, httpx.Client(trust_env=False) as client:
        _serve(service, client)
        _check(service, hello="GET /hello/<name>", stream="GET /stream/<int:count>", broken="GET /broken/<x>")
        pieces = [line for line in service.lines() if line["message"] == "piece"]
        assert {line["request_id"] for line in pieces} == {service.line("GET /stream/3 200")["request_id"]}
        _leave(service, "GET /stream/<int:count>")


@pytest.mark.parametrize(("server", "logger"), [("gunicorn-sync", "gunicorn.error"), ("granian", "_granian")])
def test_everything_a_worker_writes_is_a_line_of_ours_with_the_requests_ids(tmp_path: Path, server: str, logger: str) -> None:
    """The server's error log, loguru and structlog, which are imported after instrument(); the server's access log is silent."""
    with running(tmp_path, FLASK, *FLASK_SERVERS[server]) as service, httpx.Client(trust_env=False) as client:
        for number, (path, message) in enumerate(
            ((f"server-log/{logger}", "from the server"), ("loguru", "from loguru"), ("structlog", "from structlog"))
        ):
            client.get(f"{service.url}/{path}", headers={"x-request-id": f"r{number}"})
            assert service.line(message)["request_id"] == f"r{number}"
        assert service.line("from loguru")["colour"] == service.line("from structlog")["colour"] == "red"
        client.get(f"{service.url}/server-log/{logger}")
        service.line(f"GET /server-log/{logger} 200")
        assert not [line for line in service.process.log.read_text().splitlines() if "GET /" in line and not line.startswith("{")]
        assert not [line for line in service.lines() if "GET /" in line["message"] and line["logger"] != "sage_obs.access"]


def test_a_trace_comes_in_goes_out_and_arrives(tmp_path: Path) -> None:
    """The caller's trace is continued in the upstream call and in the spans of the request and of what its stream calls."""
    seen: list[str] = []

    class Upstream(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["traceparent"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    with receiver() as traces, serving(Upstream) as upstream:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": traces.url, "UPSTREAM": upstream}
        with running(tmp_path, FLASK, *FLASK_SERVERS["gunicorn-gthread"], environ=environ) as service:
            answer = httpx.get(f"{service.url}/ask/this", headers={"traceparent": f"00-{TRACE}-{SPAN}-01"}, trust_env=False)
            assert answer.text == "ab"
            by_name = {span.name: span for span in traces.wait(2)}
            server, model = by_name["GET /ask/<what>"], by_name["chat gpt-4o"]
            assert server.trace_id.hex() == model.trace_id.hex() == TRACE
            assert (server.parent_span_id.hex(), model.parent_span_id) == (SPAN, server.span_id)
            assert server.kind == server.SPAN_KIND_SERVER
            assert attributes(server)["url.path"] == "/ask/this"
            assert seen == [f"00-{TRACE}-{server.span_id.hex()}-01"]


@pytest.mark.parametrize("server", DJANGO_SERVERS)
def test_django_is_measured_by_its_routes(tmp_path: Path, server: str) -> None:
    """Both handlers, whose modules are imported after instrument(); nested and regular-expression routes are templates."""
    environ = {"ASGI": "1"} if server in {"uvicorn", "granian"} else {}
    with running(tmp_path, DJANGO, *DJANGO_SERVERS[server], environ=environ) as service, httpx.Client(trust_env=False) as client:
        _serve(service, client)
        _check(service, hello="GET /hello/<name>", stream="GET /stream/<int:count>", broken="GET /broken/<x>")
        client.get(f"{service.url}/denied/7")
        service.reaches(1, REQUESTS, operation="GET /^denied/(?P<x>[0-9]+)$", outcome="client_error")
        assert service.value(ERRORS, error_type="auth") == 1
        if not environ or django.VERSION >= (5,):  # before, its ASGI handler did not ask whether the caller is still there
            _leave(service, "GET /stream/<int:count>")
