from __future__ import annotations

import asyncio
import logging
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from opentelemetry import trace
from prometheus_client import Counter

import sage_obs
from sage_obs import testing
from sage_obs.errors import SageObsError
from tests.support.asgi import answering, scope_of, serve

ROOT = Path(__file__).parents[3]


def test_everything_that_is_recorded_can_be_read() -> None:
    """Values by name and labels, spans by name, lines with their keys; inside the block and after it."""
    with testing.capture("shop", agent_id="a1", log_level="debug") as telemetry:
        assert telemetry.value("sage_tool_calls_total", tool="search") == 0
        app = sage_obs.instrument_app(answering(503))
        asyncio.run(serve(app, scope_of("GET", "/")))
        assert telemetry.value("sage_agent_requests_total", outcome="server_error", agent_id="a1") == 1
        with trace.get_tracer("theirs").start_as_current_span("inner") as span:
            span.set_attribute("many", ["a", "b"])
        logging.getLogger("shop").debug("said", extra={"colour": "red"})
    assert telemetry.value("sage_agent_requests_total") == 1
    assert telemetry.value("sage_agent_request_duration_seconds_count") == 1
    server = telemetry.span("unmatched")
    assert (server.kind, server.parent_id, server.error_type) == ("server", "", "unavailable")
    assert server.attributes["http.response.status_code"] == 503
    assert server.seconds >= 0.0
    assert telemetry.span("inner").attributes["many"] == ("a", "b")
    access, said = (line for line in telemetry.lines if line["logger"] != "asyncio")
    assert (access["message"], said["message"]) == telemetry.messages[-2:] == ("GET / 503", "said")
    assert access["trace_id"] == server.trace_id
    assert (said["level"], said["colour"], said["service"]) == ("debug", "red", "shop")


def test_blocks_do_not_see_each_other() -> None:
    """Each begins with nothing, and what happens outside is in none."""
    for _ in range(2):
        with testing.capture() as telemetry:
            with sage_obs.tool("x"):
                pass
            assert telemetry.value("sage_tool_calls_total") == 1
            assert len(telemetry.spans) == 1
        with sage_obs.tool("x"):
            pass
        assert telemetry.value("sage_tool_calls_total") == 1
        assert len(telemetry.spans) == 1


def test_a_slip_is_an_error_with_a_suggestion() -> None:
    """An unknown metric, label or span does not count as nothing."""
    with testing.capture() as telemetry:
        with sage_obs.tool("x"):
            pass
        with pytest.raises(SageObsError, match="Did you mean `sage_tool_calls_total`"):
            telemetry.value("sage_tool_call_total")
        with pytest.raises(SageObsError, match=r"no label `name`.*outcome, tool"):
            telemetry.value("sage_tool_calls_total", name="x")
        with pytest.raises(SageObsError, match="There are: execute_tool x"):
            telemetry.span("execute_tool y")


def test_the_applications_own_metrics_are_there() -> None:
    """What it counts with prometheus_client can be read by the same name."""
    counter = Counter("theirs_of_the_capture_test", "Theirs.", ["colour"])
    with testing.capture() as telemetry:
        counter.labels("red").inc(3)
        assert telemetry.value("theirs_of_the_capture_test_total", colour="red") == 3


def test_nothing_leaves_the_process(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """No socket is opened and no line written, whatever the environment says, and a call of instrument() changes nothing."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket")

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("SAGE_OBSERVABILITY_ENABLED", "false")
    monkeypatch.setattr(socket.socket, "bind", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    before = {thread.name for thread in threading.enumerate()}
    with testing.capture() as telemetry:
        handle = sage_obs.instrument("app", metrics_port=9090, log_output="stdout")
        assert handle.metrics_port is None
        assert not sage_obs.instrument(enabled=False).status()["ops"].on
        logging.getLogger("x").error("hear me")
        sage_obs.agent("a")(lambda: None)()
        assert telemetry.value("sage_agent_requests_total", operation="a") == 1
        assert {thread.name for thread in threading.enumerate()} == before
    assert capfd.readouterr() == ("", "")
    assert sage_obs.instrument().status()["sage_obs"].why.startswith("switched off"), "instrument() counts again"


def test_the_logging_of_the_test_is_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    """Handlers and level come back, also after an exception, and pytest's own handler hears everything meanwhile."""
    root = logging.getLogger()
    before = (list(root.handlers), root.level)

    def fail() -> None:
        with testing.capture() as telemetry:
            logging.getLogger("x").info("hear me")
            logging.getLogger("x").debug("not this")
            assert telemetry.messages == ("hear me",)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (list(root.handlers), root.level) == before
    assert "hear me" in caplog.text


def test_the_how_to_is_true(tmp_path: Path) -> None:
    """Its block is a test file that passes."""
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/how-to/test-your-agent.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "test_shop.py").write_text(block)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "test_shop.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
