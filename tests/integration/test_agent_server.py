"""The agent as callers see it: a real process on loopback."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path

import httpx
import pytest

from tests.support.agents import BODY, RunningAgent, running_agent, start_agent, wait_for_line


def _events(text: str) -> list[tuple[str, dict[str, object]]]:
    """Server-sent events as (name, data)."""
    blocks = [block.split("\n") for block in text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def _connected(agent: RunningAgent) -> socket.socket:
    return socket.create_connection(("127.0.0.1", agent.start["port"]), timeout=5)


def _read_until(connection: socket.socket, end: bytes) -> bytes:
    answer = b""
    while not answer.endswith(end):
        answer += connection.recv(65536)
    return answer


@pytest.mark.parametrize("path", ["/v1/messages", "/a2a/v1/messages", "/sage/message"])
def test_every_message_path_answers(tmp_path: Path, path: str) -> None:
    """One message in, one out, bare or wrapped, on each of the guide's paths."""
    with running_agent(tmp_path) as agent:
        bare = httpx.post(agent.url + path, json={**BODY, "contextId": "c-1"}).raise_for_status().json()
        wrapped = httpx.post(agent.url + path, json={"message": BODY}).raise_for_status().json()
    assert (bare["kind"], bare["role"], bare["contextId"]) == ("message", "agent", "c-1")
    assert bare["parts"] == wrapped["parts"]
    assert bare["metadata"]["usage"]["input_tokens"] == 2


def test_a_stream_is_messages_and_done(tmp_path: Path) -> None:
    """A stream's messages share one id and add up to the plain answer; `done` brings the usage."""
    with running_agent(tmp_path) as agent:
        whole = httpx.post(f"{agent.url}/v1/messages", json=BODY).json()
        response = httpx.post(f"{agent.url}/v1/messages/stream", json=BODY)
    *pieces, (last, end) = _events(response.text)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert {name for name, _ in pieces} == {"message"}
    assert last == "done"
    assert {piece["messageId"] for _, piece in pieces} == {end["messageId"]}
    assert "".join(piece["parts"][0]["text"] for _, piece in pieces) == whole["parts"][0]["text"]  # type: ignore[index]
    assert end["metadata"] == whole["metadata"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("POST", "/v1/messages", {"content-type": "application/json"}, b"{", 400),
        ("GET", "/nowhere", {}, b"", 404),
        ("GET", "/v1/messages", {}, b"", 405),
        ("POST", "/v1/messages", {"content-type": "application/json"}, b'"' + b"x" * 2000 + b'"', 413),
        ("POST", "/v1/messages", {"content-type": "text/plain"}, b"{}", 415),
        ("POST", "/v1/messages", {"content-type": "application/json", "content-encoding": "gzip"}, b"{}", 415),
    ],
    ids=["invalid JSON", "unknown path", "method", "too long", "media type", "compressed"],
)
def test_bad_requests_are_told_why(tmp_path: Path, method: str, path: str, headers: dict[str, str], body: bytes, status: int) -> None:
    """Each kind of bad request has its status and a JSON error with the request's id."""
    with running_agent(tmp_path, environ={"SAGE_SERVER_MAX_BODY_BYTES": "1000"}) as agent:
        response = httpx.request(method, agent.url + path, headers=headers, content=body)
    error = response.json()["error"]
    assert response.status_code == status
    assert error["type"] == "invalid_request"
    assert error["request_id"] == response.headers["x-request-id"]


def test_a_chunked_body_cannot_exceed_the_limit(tmp_path: Path) -> None:
    """A body that does not say its length is measured as it comes."""
    with running_agent(tmp_path, environ={"SAGE_SERVER_MAX_BODY_BYTES": "1000"}) as agent:
        chunks = iter([b"x" * 400] * 5)
        response = httpx.post(f"{agent.url}/v1/messages", headers={"content-type": "application/json"}, content=chunks)
    assert response.status_code == 413


def test_a_body_that_never_comes_is_given_up(tmp_path: Path) -> None:
    """A caller that stops in the middle of its body is answered 408 at the deadline, in JSON."""
    with running_agent(tmp_path, environ={"SAGE_SERVER_REQUEST_TIMEOUT": "200ms"}) as agent, _connected(agent) as connection:
        connection.sendall(b"POST /v1/messages HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n{")
        answer = _read_until(connection, b"}}")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"type":"timeout"' in answer


def test_a_full_queue_is_503_with_retry_after(tmp_path: Path) -> None:
    """With one slot and no queue, a second request is turned away at once and the first is served."""
    environ = {"SAGE_MAX_CONCURRENT": "1", "SAGE_QUEUE_SIZE": "0", "SAGE_LLM_SCRIPTED_LATENCY": "1s"}
    with running_agent(tmp_path, environ=environ) as agent, httpx.stream("POST", f"{agent.url}/v1/messages/stream", json=BODY) as first:
        began = time.monotonic()
        second = httpx.post(f"{agent.url}/v1/messages", json=BODY)
        took = time.monotonic() - began
        first.read()
    assert (second.status_code, second.headers["retry-after"]) == (503, "1")
    assert second.json()["error"]["type"] == "queue_full"
    assert took < 0.5
    assert _events(first.text)[-1][0] == "done"


def test_a_scripted_failure_is_502(tmp_path: Path) -> None:
    """A third of the calls fails, exactly, and each failure is a JSON 502."""
    environ = {"SAGE_LLM_SCRIPTED_ERROR_RATE": str(1 / 3), "SAGE_LLM_SCRIPTED_LATENCY": "0"}
    with running_agent(tmp_path, environ=environ) as agent, httpx.Client() as client:
        answers = [client.post(f"{agent.url}/v1/messages", json=BODY) for _ in range(30)]
    assert [answer.status_code for answer in answers] == [200, 200, 502] * 10
    assert answers[2].json()["error"]["type"] == "server_error"


def test_a_taken_port_is_an_error_that_names_it(tmp_path: Path) -> None:
    """The second agent on a port says which one, without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start_agent(tmp_path, environ={"SAGE_SERVER_PORT": str(port)})
        assert process.popen.wait(10) == 1
    assert f"Port {port} on 127.0.0.1 is taken" in process.tail()
    assert "Traceback" not in process.log.read_text()


def test_a_taken_metrics_port_is_an_error_that_names_it(tmp_path: Path) -> None:
    """An agent that nobody could watch does not start, and says which port is missing."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start_agent(tmp_path, environ={"SAGE_METRICS_PORT": str(port)})
        assert process.popen.wait(10) == 1
    assert f"127.0.0.1:{port}" in process.tail()
    assert "Traceback" not in process.log.read_text()


def test_without_the_layer_the_agent_still_serves_and_says_where(tmp_path: Path) -> None:
    """With the master switch off messages are answered and the start line is JSON all the same."""
    with running_agent(tmp_path, environ={"SAGE_OBSERVABILITY_ENABLED": "false"}) as agent:
        answer = httpx.post(f"{agent.url}/v1/messages", json=BODY)
        problem = httpx.post(f"{agent.url}/v1/messages", json={})
    assert answer.status_code == 200
    assert problem.json()["error"]["request_id"].startswith("req-")
    assert agent.start["metrics_port"] is None


def test_what_has_no_effect_is_said_at_the_start(tmp_path: Path) -> None:
    """A key that nobody is asked with is one warning line in the log."""
    (tmp_path / "config.yaml").write_text("llm: {openai: {api_key: sk-1}}\n")
    with running_agent(tmp_path) as agent:
        warnings = [line["message"] for line in agent.lines() if line["level"] == "warning"]
    assert len(warnings) == 1
    assert "answers are scripted" in warnings[0]


def test_a_bad_configuration_is_an_error_that_names_it(tmp_path: Path) -> None:
    """An unknown key ends the start with exit code 2 and a suggestion."""
    (tmp_path / "config.yaml").write_text("server: {prot: 1}\n")
    process = start_agent(tmp_path)
    assert process.popen.wait(10) == 2
    assert "did you mean `server.port`?" in process.tail()


def test_an_idle_agent_stops_quickly(tmp_path: Path) -> None:
    """SIGTERM ends an idle agent with exit code 0 in well under a second."""
    with running_agent(tmp_path) as agent:
        began = time.monotonic()
        agent.process.signal(signal.SIGTERM)
        assert agent.process.popen.wait(5) == 0
        assert time.monotonic() - began < 1.0
    assert [line["message"] for line in agent.lines()][-1] == "agent stopped"


def test_the_start_is_quick(tmp_path: Path) -> None:
    """From the start of the process to the first answer it takes far less than the minute's share."""
    began = time.monotonic()
    process = start_agent(tmp_path)
    try:
        port = wait_for_line(process, "agent listening")["port"]
        httpx.post(f"http://127.0.0.1:{port}/v1/messages", json=BODY).raise_for_status()
        took = time.monotonic() - began
    finally:
        process.signal(signal.SIGTERM)
        process.popen.wait(5)
    assert took < 5.0
