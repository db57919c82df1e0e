"""How many messages an agent answers: ours, the same without its instrumentation, the bare server, and its peers, in one run.

`make bench` runs it in an environment of its own; `python benchmarks/agent.py --help` says what can be chosen.

wrk sends a 300-byte message over 64 connections from the same machine, so that load and server share its cores. The model is scripted
and answers at once. Stacks take turns, round by round, and the median round is shown; the CPU time is that of the server's processes,
divided by the requests of the round. Ours counts, logs to a file, traces a tenth of its requests to a receiver in another process and
has its profiler on, as everywhere.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

CONNECTIONS: Final = 64
_TEXT: Final = "please summarise this " * 8
_MESSAGE: Final = {
    "messageId": "6f7a6b1e-6f0f-4c57-9d0c-0d2f6a3f7b11",
    "role": "user",
    "kind": "message",
    "parts": [{"kind": "text", "text": _TEXT}],
    "metadata": {"k": "v"},
}
_CHAT: Final = {"model": "scripted", "messages": [{"role": "user", "content": _TEXT}], "max_tokens": 50}
_SEND: Final = {
    "jsonrpc": "2.0",
    "id": "1",
    "method": "SendMessage",
    "params": {"message": {"messageId": "m-1", "role": "ROLE_USER", "parts": [{"text": _TEXT}]}},
}
OURS: Final = "sage-agent"
BARE: Final = "sage-agent, not instrumented"


@dataclass(frozen=True)
class Stack:
    """A server: how it is started on a port, what is sent to it, and what else its environment holds."""

    name: str
    command: Callable[[int], Sequence[str]]
    path: str = "/v1/messages"
    body: Mapping[str, Any] = field(default_factory=lambda: _MESSAGE)
    environ: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    needs: str = ""


@dataclass(frozen=True)
class Round:
    """What wrk saw, what the server used (CPU in microseconds a request), and its resident memory in MiB."""

    rate: float
    p50: float
    p95: float
    p99: float
    errors: int
    cpu: float
    memory: float


def _agent(workers: int) -> Callable[[int], Sequence[str]]:
    return lambda port: (sys.executable, "-m", "sage_agent", "serve", "--host", "127.0.0.1", "--port", str(port), "--workers", str(workers))


def _peer(name: str, workers: int = 1) -> Callable[[int], Sequence[str]]:
    return lambda port: (sys.executable, __file__, "--serve", name, "--port", str(port), "--workers", str(workers))


def stacks(workers: int) -> list[Stack]:
    """Everything that is measured."""
    off = {"SAGE_OBSERVABILITY_ENABLED": "false"}
    return [
        Stack(OURS, _agent(workers)),
        Stack(BARE, _agent(workers), environ=off),
        Stack(f"{OURS}, one process", _agent(1)),
        Stack(f"{BARE}, one process", _agent(1), environ=off),
        Stack("its HTTP server alone, one process", _peer("hello")),
        Stack("FastAPI and the usual instrumentation", _peer("fastapi", workers), needs="fastapi"),
        Stack("a2a-sdk, SendMessage", _peer("a2a"), path="/", body=_SEND, headers={"a2a-version": "1.0"}, needs="a2a-sdk"),
        Stack(
            "LiteLLM proxy", _litellm, path="/v1/chat/completions", body=_CHAT, headers={"authorization": "Bearer sk-1"}, needs="litellm"
        ),
    ]


def _litellm(port: int) -> Sequence[str]:
    file = Path(tempfile.gettempdir()) / f"sage-obs-bench-litellm-{os.getpid()}.yaml"
    model = {"model_name": "scripted", "litellm_params": {"model": "openai/scripted", "api_key": "x", "mock_response": "Noted."}}
    file.write_text(json.dumps({"model_list": [model], "general_settings": {"master_key": "sk-1"}}))
    return (str(Path(sys.executable).with_name("litellm")), "--config", str(file), "--port", str(port), "--host", "127.0.0.1")


# The peers, each in a process of its own.


async def _hello(scope: Any, receive: Any, send: Any) -> None:
    del scope
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def serve_hello(port: int, _: int) -> None:
    """Our HTTP server with an application that does nothing."""
    from sage_agent.server.draining import DrainingServer
    from sage_agent.server.hooks import Hooks
    from sage_agent.server.sockets import open_listener

    async def nothing() -> None:
        return

    hooks = Hooks(before=nothing, listening=lambda: None, draining=lambda: None, after=nothing)
    DrainingServer(_hello, hooks, drain_timeout=1.0).serve_on(open_listener("127.0.0.1", port, environ={}).sock)


def serve_fastapi(port: int, workers: int) -> None:
    """The same endpoint as people write it, with prometheus-fastapi-instrumentator, OpenTelemetry and a JSON access log."""
    import logging

    listener = socket.create_server(("127.0.0.1", port), backlog=2048)
    for _ in range(workers - 1):
        if os.fork() == 0:
            break

    import uvicorn
    from fastapi import FastAPI
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
    from prometheus_fastapi_instrumentator import Instrumentator
    from pydantic import BaseModel
    from pythonjsonlogger.json import JsonFormatter

    class Part(BaseModel):
        kind: str
        text: str

    class Message(BaseModel):
        messageId: str  # noqa: N815 - the wire's name
        role: str
        kind: str
        parts: list[Part]
        metadata: dict[str, Any]

    application = FastAPI()

    async def answer(message: Any) -> dict[str, Any]:
        words = len(message.parts[0].text.split())
        return {"kind": "message", "role": "agent", "parts": [{"kind": "text", "text": f"Noted: you sent {words} words."}]}

    answer.__annotations__ = {"message": Message, "return": dict[str, Any]}  # FastAPI reads them, and knows no local names
    application.post("/v1/messages")(answer)
    provider = TracerProvider(sampler=TraceIdRatioBased(0.1))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=os.environ["SAGE_TRACES_ENDPOINT"])))
    trace.set_tracer_provider(provider)
    FastAPIInstrumentor.instrument_app(application)
    Instrumentator().instrument(application).expose(application)
    handler = logging.FileHandler(os.environ["SAGE_LOG_OUTPUT"])
    handler.setFormatter(JsonFormatter())
    logging.getLogger("uvicorn.access").handlers = [handler]
    uvicorn.Server(uvicorn.Config(application, log_config=None, log_level="info")).run(sockets=[listener])


def serve_a2a(port: int, _: int) -> None:
    """An agent that echoes, as the SDK serves it."""
    import uvicorn
    from a2a.server.agent_execution import AgentExecutor, RequestContext
    from a2a.server.events import EventQueue
    from a2a.server.request_handlers import DefaultRequestHandler
    from a2a.server.routes import create_jsonrpc_routes
    from a2a.server.tasks import InMemoryTaskStore
    from a2a.types.a2a_pb2 import AgentCard, Message, Part, Role
    from starlette.applications import Starlette

    class Echo(AgentExecutor):
        async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
            del context
            await event_queue.enqueue_event(Message(message_id="r", role=Role.ROLE_AGENT, parts=[Part(text="Noted.")]))

        async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
            del context, event_queue

    handler = DefaultRequestHandler(agent_executor=Echo(), task_store=InMemoryTaskStore(), agent_card=AgentCard(name="echo", version="1"))
    uvicorn.run(Starlette(routes=create_jsonrpc_routes(handler, rpc_url="/")), host="127.0.0.1", port=port, log_level="warning")


PEERS: Final = {"hello": serve_hello, "fastapi": serve_fastapi, "a2a": serve_a2a}


# Measuring.


@contextmanager
def _sink() -> Iterator[str]:
    """Where spans go: a process that answers every request with 200."""
    port = _free_port()
    process = subprocess.Popen([sys.executable, __file__, "--serve", "sink", "--port", str(port)])
    try:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}/v1/traces"
    finally:
        process.kill()
        process.wait()


def serve_sink(port: int, _: int) -> None:
    """Answer everything with 200."""

    class Sink(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            del format, args

    ThreadingHTTPServer(("127.0.0.1", port), Sink).serve_forever()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes], *, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"A server ended with {process.returncode} before it listened.")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise SystemExit("A server never listened.")


@contextmanager
def running(stack: Stack, sink: str, folder: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server that listens: its port and its process, which is the leader of its group."""
    port = _free_port()
    environ = {
        **os.environ,
        "SAGE_LLM_SCRIPTED_LATENCY": "0",
        "SAGE_LOG_OUTPUT": str(folder / "log"),
        "SAGE_TRACES_ENDPOINT": sink,
        "SAGE_METRICS_HOST": "127.0.0.1",
        "SAGE_METRICS_PORT": "0",
        "SAGE_PROFILING_PORT": "0",
        "SAGE_STORAGE_PATH": str(folder / "state.db"),
        **stack.environ,
    }
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(stack.command(port), env=environ, stdout=out, stderr=out, start_new_session=True)
    try:
        _wait_for(port, process)
        time.sleep(1.0)
        yield port, process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _group(leader: int) -> list[Path]:
    """The processes of a group."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[2]) == leader:
                found.append(folder)
    return found


def _used(leader: int) -> float:
    """CPU seconds of a group so far."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0
    for folder in _group(leader):
        with contextlib.suppress(OSError):
            words = (folder / "stat").read_text().rpartition(")")[2].split()
            total += int(words[11]) + int(words[12])
    return total / ticks


def _memory(leader: int) -> float:
    """Resident memory of a group in MiB, what its processes share counted once in each."""
    total = 0
    for folder in _group(leader):
        with contextlib.suppress(OSError, StopIteration):
            total += next(int(line.split()[1]) for line in (folder / "smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
    return total / 1024


def measure(stack: Stack, port: int, leader: int, *, seconds: int, folder: Path) -> Round:
    """One round of wrk."""
    script = folder / "ask.lua"
    headers = {"content-type": "application/json", **stack.headers}
    lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
    script.write_text("\n".join(['wrk.method = "POST"', *lines, f"wrk.body = [==[{json.dumps(stack.body)}]==]", _REPORT]))
    before = _used(leader)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "-s", str(script), f"http://127.0.0.1:{port}{stack.path}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = _used(leader) - before
    found = re.search(r"REPORT (\d+) ([\d.]+) ([\d.]+) ([\d.]+) ([\d.]+) (\d+)", said)
    if found is None:
        raise SystemExit(f"wrk said nothing of use:\n{said}")
    count, elapsed, p50, p95, p99 = (float(found.group(number)) for number in range(1, 6))
    return Round(count / elapsed, p50, p95, p99, int(found.group(6)), used / max(1.0, count) * 1e6, _memory(leader))


_REPORT: Final = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("REPORT %d %f %f %f %f %d\\n", summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(95) / 1e3, latency:percentile(99) / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def _installed(stack: Stack) -> bool:
    if not stack.needs:
        return True
    try:
        importlib.metadata.version(stack.needs)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def compare(chosen: Sequence[Stack], *, rounds: int, seconds: int) -> dict[str, list[Round]]:
    """Rounds by the name of the stack; a stack is started anew for each."""
    results: dict[str, list[Round]] = {stack.name: [] for stack in chosen}
    with _sink() as sink:
        for number in range(rounds):
            for stack in chosen:
                with tempfile.TemporaryDirectory() as name, running(stack, sink, Path(name)) as (port, process):
                    measure(stack, port, process.pid, seconds=2, folder=Path(name))
                    found = measure(stack, port, process.pid, seconds=seconds, folder=Path(name))
                results[stack.name].append(found)
                print(f"round {number + 1}: {stack.name}: {found.rate:,.0f} requests/s", file=sys.stderr)
    return results


def table(results: Mapping[str, Sequence[Round]]) -> str:
    """Markdown, with ratios to ours."""
    middle = {name: _median(rounds) for name, rounds in results.items() if rounds}
    ours = middle.get(OURS)
    lines = [
        "| | requests/s | ÷ sage-agent | p50 ms | p95 ms | p99 ms | errors | server CPU µs | memory MiB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, one in middle.items():
        ratio = f"{one.rate / ours.rate:.2f}" if ours else ""
        times = f"{one.p50:.1f} | {one.p95:.1f} | {one.p99:.1f}"
        lines.append(f"| {name} | {one.rate:,.0f} | {ratio} | {times} | {one.errors} | {one.cpu:.0f} | {one.memory:.0f} |")
    return "\n".join(lines)


def _median(rounds: Sequence[Round]) -> Round:
    """The round with the median rate; errors are those of all."""
    ordered = sorted(rounds, key=lambda one: one.rate)
    middle = ordered[len(ordered) // 2]
    errors = sum(one.errors for one in rounds)
    cpu = statistics.median(one.cpu for one in rounds)
    return Round(middle.rate, middle.p50, middle.p95, middle.p99, errors, cpu, middle.memory)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="how long a round of ours is; peers get a quarter")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", action="append", help="a part of a stack's name; may be given several times")
    parser.add_argument("--quick", action="store_true", help="one round of five seconds each")
    parser.add_argument("--serve", choices=[*PEERS, "sink"], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        {**PEERS, "sink": serve_sink}[asked.serve](asked.port, asked.workers)
        return
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is needed and is not there. Type: apt-get install -y wrk")
    chosen = [one for one in stacks(asked.workers) if not asked.only or any(part in one.name for part in asked.only)]
    absent = [one.needs for one in chosen if not _installed(one)]
    if absent:
        print(f"Not installed, and left out: {', '.join(absent)}", file=sys.stderr)
    chosen = [one for one in chosen if _installed(one)]
    rounds, seconds = (1, 5) if asked.quick else (asked.rounds, asked.seconds)
    results = compare(chosen, rounds=rounds, seconds=seconds)
    print(f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {os.cpu_count()} cores, {rounds} x {seconds} s\n")
    print(table(results))


if __name__ == "__main__":
    main()
