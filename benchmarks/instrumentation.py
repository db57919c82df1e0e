"""What a layer of instrumentation adds to one request: ours, its peers and a near-limit reference, interleaved in one run.

`make bench` runs it in an environment of its own; `python benchmarks/instrumentation.py --help` says what can be chosen.

Each variant is a process that serves the same Starlette application in memory: no sockets, so that nothing but the layer differs. The
driver tells one after the other to serve a batch, many rounds long, and takes medians, so that what else the machine does falls on all
of them alike. Spans go to a receiver in another process, which answers every path with 200. Two numbers are taken for every batch: the
CPU time of the whole process, exporter threads included, and the time that passed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, cast

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]

SAMPLED: Final = 0.1
"""The share of requests that is traced: the layer's default."""
HEADERS: Final = [(b"host", b"localhost:8080"), (b"user-agent", b"bench/1"), (b"accept", b"*/*"), (b"accept-encoding", b"gzip")]
REFERENCE: Final = "near-limit reference"
NOTHING: Final = "nothing"
OURS: Final = "sage-obs"
USUAL: Final = "the usual stack"


def application() -> Any:
    """What is served: one route with a parameter, a short text."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def hello(request: Any) -> PlainTextResponse:
        return PlainTextResponse(f"Hello, {request.path_params['name']}!")

    return Starlette(routes=[Route("/hello/{name}", hello)])


def nothing(_url: str) -> App:
    """The application alone."""
    app: App = application()
    return app


def ours(url: str) -> App:
    """Every signal: metrics, JSON access line, health, context, spans for a tenth."""
    import sage_obs

    sage_obs.instrument(
        "bench", metrics_host="127.0.0.1", metrics_port=0, log_output=os.devnull, traces_endpoint=url, sampling_rate=SAMPLED, strict=True
    )
    return nothing(url)


def ours_without_logs(url: str) -> App:
    """The same without the access line."""
    import sage_obs

    sage_obs.instrument(
        "bench", metrics_host="127.0.0.1", metrics_port=0, logs=False, traces_endpoint=url, sampling_rate=SAMPLED, strict=True
    )
    return nothing(url)


def ours_metrics(_url: str) -> App:
    """Metrics alone."""
    import sage_obs

    sage_obs.instrument("bench", metrics_host="127.0.0.1", metrics_port=0, logs=False, traces=False, strict=True)
    return nothing(_url)


def reference(_url: str) -> App:
    """The least that could count, time, name and log a request in pure Python: no redaction, no escaping, no errors, no spans."""
    import random
    from bisect import bisect_left
    from contextvars import ContextVar

    bounds = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)
    counts, total, served, in_flight = [0] * (len(bounds) + 1), [0.0], [0], [0]
    lines: list[bytes] = []
    trace: ContextVar[str] = ContextVar("trace")
    output = os.open(os.devnull, os.O_WRONLY)

    def layer(app: App) -> App:
        async def measured(scope: Scope, receive: Any, send: Any) -> None:
            began, status = time.perf_counter(), 0
            trace_id = f"{random.getrandbits(128):032x}"
            token = trace.set(trace_id)
            in_flight[0] += 1

            async def sending(event: Scope) -> None:
                nonlocal status
                if event["type"] == "http.response.start":
                    status = event["status"]
                await send(event)

            await app(scope, receive, sending)
            seconds = time.perf_counter() - began
            in_flight[0] -= 1
            served[0] += 1
            counts[bisect_left(bounds, seconds)] += 1
            total[0] += seconds
            trace.reset(token)
            lines.append(
                f'{{"timestamp":"{time.time()}","level":"info","message":"{scope["method"]} {scope["path"]} {status}",'
                f'"trace_id":"{trace_id}","duration_ms":{seconds * 1000:.3f}}}\n'.encode()
            )
            if len(lines) >= 200:  # noqa: PLR2004 - a batch
                os.write(output, b"".join(lines))
                lines.clear()

        return measured

    return layer(nothing(_url))


def starlette_exporter(_url: str) -> App:
    """Metrics alone."""
    from starlette_exporter import PrometheusMiddleware

    app = application()
    app.add_middleware(PrometheusMiddleware, app_name="bench")
    return cast("App", app)


def fastapi_instrumentator(_url: str) -> App:
    """Metrics alone."""
    from prometheus_fastapi_instrumentator import Instrumentator

    app = application()
    Instrumentator().instrument(app)
    return cast("App", app)


def _otel(url: str) -> None:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    provider = TracerProvider(sampler=ParentBasedTraceIdRatio(SAMPLED))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{url}/v1/traces")))
    trace.set_tracer_provider(provider)


def opentelemetry(url: str) -> App:
    """Traces alone, without the spans of send and receive."""
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    _otel(url)
    return cast("App", OpenTelemetryMiddleware(application(), exclude_spans=["send", "receive"]))


def _json_logger() -> Any:
    import logging

    from pythonjsonlogger.json import JsonFormatter

    handler = logging.FileHandler(os.devnull)
    handler.setFormatter(JsonFormatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("access")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


def the_usual_stack(url: str) -> App:
    """starlette_exporter, OpenTelemetry's ASGI middleware and a JSON access line by python-json-logger."""
    from opentelemetry import trace
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    inner, logger = starlette_exporter(url), _json_logger()
    _otel(url)

    async def logging_app(scope: Scope, receive: Any, send: Any) -> None:
        began, status = time.perf_counter(), 0

        async def sending(event: Scope) -> None:
            nonlocal status
            if event["type"] == "http.response.start":
                status = event["status"]
            await send(event)

        await inner(scope, receive, sending)
        context = trace.get_current_span().get_span_context()
        logger.info(
            "request",
            extra={
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "trace_id": f"{context.trace_id:032x}",
                "duration_ms": (time.perf_counter() - began) * 1000,
            },
        )

    return cast("App", OpenTelemetryMiddleware(logging_app, exclude_spans=["send", "receive"]))


def logfire_(url: str) -> App:
    """Traces and metrics, a tenth sampled."""
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = url
    import logfire

    logfire.configure(send_to_logfire=False, console=False, sampling=logfire.SamplingOptions(head=SAMPLED))
    app = application()
    logfire.instrument_starlette(app)
    return cast("App", app)


def ddtrace_(url: str) -> App:
    """Traces and errors, a tenth sampled."""
    os.environ |= {"DD_TRACE_AGENT_URL": url, "DD_TRACE_SAMPLE_RATE": str(SAMPLED), "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false"}
    os.environ |= {"DD_REMOTE_CONFIGURATION_ENABLED": "false", "DD_TRACE_STARTUP_LOGS": "false"}
    from ddtrace.contrib.asgi import TraceMiddleware

    return cast("App", TraceMiddleware(application()))


def sentry(url: str) -> App:
    """Traces and errors, a tenth sampled."""
    import sentry_sdk
    from sentry_sdk.integrations.asgi import SentryAsgiMiddleware

    sentry_sdk.init(dsn=url.replace("://", "://key@") + "/1", traces_sample_rate=SAMPLED)
    return cast("App", SentryAsgiMiddleware(application()))


def elastic(url: str) -> App:
    """Traces and errors, a tenth sampled."""
    from elasticapm.contrib.starlette import ElasticAPM, make_apm_client

    client = make_apm_client({"SERVICE_NAME": "bench", "SERVER_URL": url, "TRANSACTION_SAMPLE_RATE": SAMPLED, "CENTRAL_CONFIG": False})
    app = application()
    app.add_middleware(ElasticAPM, client=client)
    return cast("App", app)


@dataclass(frozen=True, slots=True)
class Variant:
    """A layer to measure: what it is called, how it is put around the application, which distributions it is, what it does."""

    name: str
    build: Callable[[str], App]
    packages: tuple[str, ...]
    signals: str


VARIANTS: Final = (
    Variant(NOTHING, nothing, ("starlette",), "-"),
    Variant(REFERENCE, reference, (), "counter, histogram, ids, JSON line; no spans, no escaping"),
    Variant(OURS, ours, ("sage-obs",), "metrics, health, JSON line, context, spans"),
    Variant("sage-obs, no logs", ours_without_logs, ("sage-obs",), "metrics, health, context, spans"),
    Variant("sage-obs, metrics only", ours_metrics, ("sage-obs",), "metrics, health"),
    Variant("starlette_exporter", starlette_exporter, ("starlette-exporter",), "metrics"),
    Variant("fastapi instrumentator", fastapi_instrumentator, ("prometheus-fastapi-instrumentator",), "metrics"),
    Variant("OpenTelemetry ASGI", opentelemetry, ("opentelemetry-instrumentation-asgi",), "spans"),
    Variant(USUAL, the_usual_stack, ("python-json-logger",), "metrics, JSON line, spans"),
    Variant("Logfire", logfire_, ("logfire",), "metrics, spans"),
    Variant("ddtrace", ddtrace_, ("ddtrace",), "spans"),
    Variant("Sentry", sentry, ("sentry-sdk",), "spans, errors"),
    Variant("Elastic APM", elastic, ("elastic-apm",), "spans, errors"),
)


def serve(name: str, url: str) -> None:
    """Be one variant: for each line with a number on stdin serve so many requests, and answer with what they cost."""
    app = next(variant for variant in VARIANTS if variant.name == name).build(url)
    asyncio.run(_serve(app))


async def _serve(app: App) -> None:
    print("ready", flush=True)
    while line := sys.stdin.readline():
        cpu, began = time.process_time(), time.perf_counter()
        await _batch(app, int(line))
        passed = time.perf_counter() - began
        await asyncio.sleep(0.05)  # what the batch left to threads belongs to it
        print(json.dumps({"cpu": time.process_time() - cpu, "wall": passed}), flush=True)


async def _batch(app: App, requests: int) -> None:
    for _ in range(requests):
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": "/hello/world",
            "raw_path": b"/hello/world", "root_path": "", "scheme": "http", "query_string": b"", "headers": HEADERS,
            "client": ("127.0.0.1", 40000), "server": ("127.0.0.1", 8080), "state": {},
        }  # fmt: skip
        await app(scope, _receive, _send)


async def _receive() -> Scope:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(_event: Scope) -> None:
    pass


class Worker:
    """A variant in a process of its own."""

    def __init__(self, variant: Variant, url: str) -> None:
        self.variant = variant
        command = [sys.executable, __file__, "--serve", variant.name, "--url", url]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.cpu: list[float] = []
        self.wall: list[float] = []

    def ready(self) -> bool:
        """Whether it serves; False where one of its packages is missing or does not start here."""
        return self._process.stdout is not None and self._process.stdout.readline() == "ready\n"

    def run(self, requests: int, *, keep: bool = True) -> None:
        """Serve a batch; microseconds a request are kept."""
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        assert self._process.stdout is not None  # noqa: S101 - the same
        self._process.stdin.write(f"{requests}\n")
        self._process.stdin.flush()
        cost = json.loads(self._process.stdout.readline())
        if keep:
            self.cpu.append(cost["cpu"] / requests * 1e6)
            self.wall.append(cost["wall"] / requests * 1e6)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


class _Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Take whatever is sent."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_PUT = do_GET = do_POST  # noqa: N815 - the base class's names

    def log_message(self, *_: object) -> None:
        """Nothing."""


def measure(variants: list[Variant], *, rounds: int, requests: int) -> list[Worker]:
    """Interleave the variants' batches. One that cannot be had is said to be missing and left out."""
    sink = ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{sink.server_address[1]}"
    workers = [Worker(variant, url) for variant in variants]
    try:
        running = [worker for worker in workers if worker.ready() or print(f"{worker.variant.name}: cannot be had", file=sys.stderr)]
        for worker in running:
            worker.run(requests, keep=False)
        for number in range(rounds):
            print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
            for worker in running:
                worker.run(requests)
        print(file=sys.stderr)
        return running
    finally:
        for worker in workers:
            worker.close()
        sink.shutdown()


def table(workers: list[Worker]) -> str:
    """The result as Markdown: medians of all rounds, what is added to the bare application, and that in units of ours."""
    base = next(worker for worker in workers if worker.variant.name == NOTHING)
    added = {worker.variant.name: statistics.median(worker.cpu) - statistics.median(base.cpu) for worker in workers}
    lines = ["| layer | signals | µs CPU added | times ours | µs passed, added |", "|---|---|---:|---:|---:|"]
    for worker in workers:
        name = worker.variant.name
        passed = statistics.median(worker.wall) - statistics.median(base.wall)
        if worker is base:
            lines.append(f"| {name} | - | ({statistics.median(base.cpu):.1f} in all) | | |")
        else:
            ratio = f"{added[name] / added[OURS]:.1f}" if OURS in added else ""
            lines.append(f"| {name} {_versions(worker.variant)} | {worker.variant.signals} | {added[name]:.1f} | {ratio} | {passed:.1f} |")
    return "\n".join(lines)


def _versions(variant: Variant) -> str:
    return ", ".join(importlib.metadata.version(package) for package in variant.packages)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="layers to measure beside nothing (default: all)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=1000, help="requests in a batch")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.serve, asked.url)
        return
    chosen = [variant for variant in VARIANTS if not asked.names or variant.name in {NOTHING, *asked.names}]
    workers = measure(chosen, rounds=asked.rounds, requests=asked.requests)
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine}; {asked.rounds} rounds of {asked.requests} requests\n")
    print(table(workers))


if __name__ == "__main__":
    main()
