from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest

from sage_obs.processes import Process, spawn, stop
from tests.support.agents import read_lines, wait_for_line
from tests.support.otlp import attributes, receiver, serving
from tests.support.services import running

TEN_LINES = """\
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import sage_obs

sage_obs.instrument("hello")

async def hello(request):
    return PlainTextResponse(f"Hello, {request.path_params['name']}!")

app = Starlette(routes=[Route("/hello/{name}", hello)])
"""
CALLING = """\
import logging
import os

import httpx
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

import sage_obs

sage_obs.instrument("shop", version="1.2.3")


async def ask(request):
    with sage_obs.context(tenant="acme", conversation_id="c1"), sage_obs.llm_call("openai", "gpt-4o") as call:
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.get(os.environ["UPSTREAM"])
        call.usage(input=3, output=2)
        logging.getLogger("shop").info("asked", extra={"colour": "red"})
    return JSONResponse({"request_id": sage_obs.current().request_id})


async def off(request):
    sage_obs.uninstrument()
    root = logging.getLogger()
    logging.getLogger("shop").warning("not json")
    return JSONResponse({"handlers": len(root.handlers), "uvicorn": len(logging.getLogger("uvicorn.access").handlers)})


app = Starlette(routes=[Route("/ask/{what}", ask), Route("/off", off)])
"""
GUIDE = ["timestamp", "level", "message", "agent_id", "request_id", "trace_id", "duration_ms"]
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRET = "ghp_SEEDseed0123456789"  # noqa: S105 - a seed to look for
_SURROUNDINGS = {"SAGE_METRICS_HOST": "127.0.0.1", "SAGE_METRICS_PORT": "0", "SAGE_LOG_LEVEL": "debug"}


@contextmanager
def _running(folder: Path, source: str, **environ: str) -> Iterator[tuple[Process, str, str]]:
    """The program served by uvicorn from a file; yields the process, its address and its metrics address."""
    (folder / "service.py").write_text(source)
    command = [sys.executable, "-m", "uvicorn", "service:app", "--port", "0"]
    process = spawn("service", command, log=folder / "log", environment={**_SURROUNDINGS, **environ}, cwd=folder)
    try:
        port = wait_for_line(process, "telemetry is on")["metrics_port"]
        listening = _wait_for_uvicorn(process)
        yield process, listening, f"http://127.0.0.1:{port}"
    finally:
        stop([process], grace=5)


def _wait_for_uvicorn(process: Process) -> str:
    wait_for_line(process, "Application startup complete.")
    text = next(line["message"] for line in _until(process, "Uvicorn running on"))
    return str(text.split()[3])


def _until(process: Process, start: str) -> list[dict[str, Any]]:
    import time

    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if found := [line for line in _json_lines(process) if str(line["message"]).startswith(start)]:
            return found
        time.sleep(0.01)
    raise AssertionError(process.tail(20))


def _json_lines(process: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.log.read_text().rpartition("\n")[0].splitlines() if line.startswith("{")]


def test_ten_lines_give_metrics_health_logs_and_ids(tmp_path: Path) -> None:
    """The user's ten lines, served by uvicorn: the guide's endpoints answer, and every line of output is JSON with its keys."""
    with _running(tmp_path, TEN_LINES) as (process, url, ops), httpx.Client(trust_env=False) as client:
        answer = client.get(f"{url}/hello/world", headers={"x-request-id": "r1"})
        assert (answer.text, answer.headers["x-request-id"]) == ("Hello, world!", "r1")
        assert 'sage_agent_requests_total{agent_id="agent-001",operation="GET /hello/{name}",outcome="success",protocol="http"} 1.0' in (
            client.get(f"{ops}/metrics").text
        )
        for base in (url, ops):
            for probe in ("live", "ready", "startup"):
                assert client.get(f"{base}/health/{probe}").json()["status"] == "healthy"
        [line] = _until(process, "GET /hello/world 200")
        assert list(line)[:7] == GUIDE
        assert line["request_id"] == "r1"
        assert isinstance(line["duration_ms"], float)
        lines = read_lines(process)
        assert {"timestamp", "level", "message", "agent_id"} <= set(lines[-1])
        assert not [one for one in lines if "127.0.0.1:" in one["message"] and "GET" in one["message"]], "uvicorn's access log is silent"


def _upstream(seen: list[str]) -> type[BaseHTTPRequestHandler]:
    """A server that remembers the traces it was called in."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["traceparent"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    return Handler


def test_a_trace_comes_in_goes_out_and_arrives(tmp_path: Path) -> None:
    """The caller's trace is continued in the upstream call, the logs and the spans a real OTLP receiver gets; then all is put back."""
    seen: list[str] = []
    with receiver() as traces, serving(_upstream(seen)) as upstream_url:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": traces.url, "UPSTREAM": upstream_url, "SAGE_TRACING_SAMPLING_RATE": "0"}
        with _running(tmp_path, CALLING, **environ) as (process, url, ops), httpx.Client(trust_env=False) as client:
            client.get(f"{url}/ask/{SECRET}", headers={"traceparent": f"00-{TRACE}-{SPAN}-01"})
            client.get(f"{url}/ask/that")
            by_name = {span.name: span for span in traces.wait(2)}
            server, model = by_name["GET /ask/{what}"], by_name["chat gpt-4o"]
            assert len(traces.spans) == 2
            assert traces.paths[0] == "/v1/traces"
            assert traces.resource["service.name"] == "shop"
            assert traces.resource["service.version"] == "1.2.3"
            assert server.trace_id.hex() == model.trace_id.hex() == TRACE
            assert server.parent_span_id.hex() == SPAN
            assert model.parent_span_id == server.span_id
            assert (server.kind, model.kind) == (server.SPAN_KIND_SERVER, model.SPAN_KIND_CLIENT)
            assert attributes(server)["url.path"] == "/ask/[REDACTED]"
            assert SECRET not in process.log.read_text()
            assert attributes(model) == {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": "gpt-4o",
                "gen_ai.conversation.id": "c1",
                "sage.tenant": "acme",
                "gen_ai.usage.input_tokens": 3,
                "gen_ai.usage.output_tokens": 2,
                "gen_ai.system": "openai",
                "gen_ai.usage.prompt_tokens": 3,
                "gen_ai.usage.completion_tokens": 2,
            }
            sampled, unsampled = seen
            assert sampled == f"00-{TRACE}-{server.span_id.hex()}-01"
            assert unsampled.endswith("-00")
            lines = _until(process, "asked")
            assert lines[0]["trace_id"] == TRACE
            assert lines[0]["span_id"] == server.span_id.hex()
            assert (lines[0]["tenant"], lines[0]["colour"]) == ("acme", "red")
            assert lines[1]["trace_id"] == unsampled.split("-")[1]
            exemplars = client.get(f"{ops}/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}).text
            assert f'trace_id="{TRACE}"' in exemplars
            _check_it_is_all_put_back(process, client, url, ops)


def _check_it_is_all_put_back(process: Process, client: httpx.Client, url: str, ops: str) -> None:
    assert client.get(f"{url}/off").json() == {"handlers": 0, "uvicorn": 1}
    answer = httpx.get(f"{url}/ask/again", headers={"x-request-id": "r9"}, trust_env=False)
    assert "x-request-id" not in answer.headers
    assert answer.json() == {"request_id": ""}
    assert client.get(f"{url}/health/live").status_code == 404
    with pytest.raises(httpx.ConnectError):
        client.get(f"{ops}/metrics")
    output = process.log.read_text()
    assert "\nnot json\n" in output
    assert '"GET /ask/again HTTP/1.1" 200' in output


def test_a_server_that_ends_by_a_signal_sends_what_waits(tmp_path: Path) -> None:
    """Uvicorn kills itself with the SIGTERM it was sent, so that no exit handler runs: its last span and line go out all the same."""
    source = TEN_LINES.replace('instrument("hello")', 'instrument("hello", sampling_rate=1.0)')
    with receiver() as traces:
        command = ("-m", "uvicorn", "service:app", "--port", "{port}")
        with running(tmp_path, source, *command, environ={"SAGE_TRACING_ENDPOINT": traces.url}) as service:
            assert httpx.get(f"{service.url}/hello/bob", trust_env=False).status_code == 200
            service.process.popen.terminate()
            assert service.process.popen.wait(20) == -signal.SIGTERM
            messages = [line["message"] for line in service.lines()]
        assert any(message.startswith("Finished server process") for message in messages), messages
        assert [span.name for span in traces.wait(1)] == ["GET /hello/{name}"]


TAIL = """\
import sage_obs
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

sage_obs.instrument("shop", sampling_rate=0.0, tail_sampling=True, tail_expensive=0.01)


async def serve(request):
    what = request.path_params["what"]
    with sage_obs.llm_call("openai", "gpt-4o") as call:
        call.usage(input=10_000_000 if what == "dear" else 1)
    return PlainTextResponse("", 503 if what == "failing" else 200)


app = Starlette(routes=[Route("/{what}", serve)])
"""


def test_traces_of_failed_and_expensive_requests_are_kept_though_none_is_sampled(tmp_path: Path) -> None:
    """Whole traces, with an exemplar that leads to each; of what went well nothing is sent."""
    with receiver() as received:
        with _running(tmp_path, TAIL, SAGE_TRACING_ENDPOINT=received.url) as (_, url, ops), httpx.Client(trust_env=False) as client:
            for what in ("good", "failing", "good", "dear", "good"):
                client.get(f"{url}/{what}")
            page = client.get(f"{ops}/metrics", headers={"accept": "application/openmetrics-text"}).text
        spans = received.wait(4)
    traces = {span.trace_id.hex() for span in spans}
    assert sorted(span.name for span in spans) == ["GET /{what}", "GET /{what}", "chat gpt-4o", "chat gpt-4o"]
    assert len(traces) == 2
    assert any(f'trace_id="{trace}"' in page for trace in traces)
