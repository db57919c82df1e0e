"""Stopping and replacing an agent under load, with real processes and signals."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Self

import httpx
import pytest

from sage_obs.platforms.local.supervisor import answers
from sage_obs.processes import stop
from tests.support.agents import BODY, RunningAgent, read_lines, running_agent, start_agent, wait_for_line


class Load:
    """Sixteen callers that ask one message after the other until they are stopped or refused; results by name.

    With `fresh_connections` every other caller opens a connection for each request.
    """

    def __init__(self, url: str, *, fresh_connections: bool) -> None:
        self.results: Counter[str] = Counter()
        self._url = url
        self._fresh = fresh_connections
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let every caller have its last answer."""
        self._stopped.set()
        self._thread.join(20)

    async def _run(self) -> None:
        once = httpx.Limits(max_keepalive_connections=0) if self._fresh else httpx.Limits()
        async with httpx.AsyncClient(timeout=10) as keeping, httpx.AsyncClient(timeout=10, limits=once) as other:
            await asyncio.gather(*(self._call(client) for client in (keeping, other) for _ in range(8)))

    async def _call(self, client: httpx.AsyncClient) -> None:
        while not self._stopped.is_set() and not self.results["refused"]:
            self.results[await _outcome(client, self._url)] += 1


async def _outcome(client: httpx.AsyncClient, url: str) -> str:
    try:
        response = await client.post(f"{url}/v1/messages", json=BODY)
    except httpx.ConnectError:
        return "refused"
    except httpx.TransportError as exc:
        return f"lost: {type(exc).__name__}"
    return "ok" if response.status_code == httpx.codes.OK else str(response.status_code)


def test_a_drain_under_load_loses_no_request(tmp_path: Path) -> None:
    """Every request on an open connection is answered while the agent drains; afterwards new connections are refused."""
    with running_agent(tmp_path) as agent, Load(agent.url, fresh_connections=False) as load:
        _until(lambda: load.results["ok"] > 50)
        agent.process.signal(signal.SIGTERM)
        assert agent.process.popen.wait(5) == 0
        load.stop()
    assert set(load.results) == {"ok", "refused"}
    assert [line["cut_requests"] for line in agent.lines() if line["message"] == "agent stopped"] == [0]


def test_a_shared_listener_outlives_its_first_server(tmp_path: Path) -> None:
    """Two agents on one socket: the first drains under load and not one request or connection fails."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        port = listener.getsockname()[1]
        with running_agent(tmp_path, name="old", listener=listener.fileno()) as old:
            load = Load(f"http://127.0.0.1:{port}", fresh_connections=True)
            with running_agent(tmp_path, name="new", listener=listener.fileno()) as new, load:
                _until(lambda: load.results["ok"] > 50)
                old.process.signal(signal.SIGTERM)
                assert old.process.popen.wait(5) == 0
                before = load.results["ok"]
                _until(lambda: load.results["ok"] > before + 50)
                load.stop()
    assert set(load.results) == {"ok"}
    assert [(agent.start["port"], agent.start["inherited_socket"]) for agent in (old, new)] == [(port, True)] * 2


@pytest.mark.parametrize("used", [False, True], ids=["opened", "kept alive"])
def test_a_request_that_arrives_while_a_draining_agent_does_not_run_is_answered(tmp_path: Path, *, used: bool) -> None:
    """What the kernel has taken for an open connection is read and answered, even if the agent gets the CPU after its own patience."""
    with running_agent(tmp_path) as agent, _connect(agent) as caller:
        if used:
            caller.request("POST", "/v1/messages", json.dumps(BODY))
            assert caller.getresponse().read()
        agent.process.signal(signal.SIGTERM)
        wait_for_line(agent.process, "agent draining")
        agent.process.signal(signal.SIGSTOP)
        caller.request("POST", "/v1/messages", json.dumps(BODY))
        time.sleep(1.5)
        agent.process.signal(signal.SIGCONT)
        answer = caller.getresponse()
        assert (answer.status, answer.getheader("connection")) == (HTTPStatus.OK, "close")
        assert agent.process.popen.wait(5) == 0


@pytest.mark.parametrize("sent", [0, 20], ids=["nothing", "half a header"])
def test_a_caller_who_had_connected_has_time_to_ask_during_a_drain(tmp_path: Path, sent: int) -> None:
    """An open connection without a whole request is not closed at once; its caller is answered and told to close."""
    request = f"POST /v1/messages HTTP/1.1\r\nhost: agent\r\ncontent-length: {len(json.dumps(BODY))}\r\n\r\n{json.dumps(BODY)}".encode()
    with running_agent(tmp_path) as agent, _connect(agent) as caller:
        caller.sock.sendall(request[:sent])
        agent.process.signal(signal.SIGTERM)
        time.sleep(0.5)
        caller.sock.sendall(request[sent:])
        answer = HTTPResponse(caller.sock, method="POST")
        answer.begin()
        assert (answer.status, answer.getheader("connection")) == (HTTPStatus.OK, "close")
        assert agent.process.popen.wait(5) == 0


def test_an_idle_connection_does_not_hold_a_drain(tmp_path: Path) -> None:
    """Connections on which nothing comes, kept alive or never used, are closed long before the drain's deadline."""
    with running_agent(tmp_path) as agent, _connect(agent), _connect(agent) as kept:
        kept.request("POST", "/v1/messages", json.dumps(BODY))
        assert kept.getresponse().read()
        agent.process.signal(signal.SIGTERM)
        assert agent.process.popen.wait(5) == 0


@contextmanager
def _connect(agent: RunningAgent) -> Iterator[HTTPConnection]:
    """A connection the agent has accepted; one it closes is not opened again."""
    caller = HTTPConnection("127.0.0.1", agent.start["port"], timeout=10)
    caller.auto_open = 0
    caller.connect()
    time.sleep(0.2)
    with closing(caller):
        yield caller


def test_whoever_is_ready_can_be_stopped_gently(tmp_path: Path) -> None:
    """Readiness is never told before the agent listens and knows how to drain: SIGTERM at the first 200 ends it with exit code 0."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = start_agent(tmp_path, environ={"SAGE_METRICS_PORT": str(port)})
    _until(lambda: answers(f"http://127.0.0.1:{port}/health/ready"))
    process.signal(signal.SIGTERM)
    assert process.popen.wait(5) == 0
    assert [line["message"] for line in read_lines(process)] == ["agent listening", "agent draining", "agent stopped"]


def _until(condition: Callable[[], bool]) -> None:
    """Wait until it holds. Raises AssertionError after ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_agent_that_is_not_ready_takes_nothing_from_a_shared_listener(tmp_path: Path) -> None:
    """A release that is not ready leaves every connection to the one that is, and stops when told to."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        unready = start_agent(tmp_path, name="unready", environ={"SAGE_LLM_SCRIPTED_UNREADY": "1"}, listener=listener.fileno())
        try:
            wait_for_line(unready, "not ready: no connection is taken from the shared socket")
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{url}/v1/messages", json=BODY, timeout=0.3)
            with running_agent(tmp_path, name="ready", listener=listener.fileno()):
                assert [httpx.post(f"{url}/v1/messages", json=BODY).status_code for _ in range(10)] == [200] * 10
            unready.signal(signal.SIGTERM)
            assert unready.popen.wait(5) == 0
        finally:
            stop([unready], grace=1.0)


@pytest.mark.parametrize(("timeout", "signals"), [("300ms", 1), ("60s", 2)], ids=["deadline", "second signal"])
def test_what_outlasts_the_drain_is_cut_and_told(tmp_path: Path, timeout: str, signals: int) -> None:
    """At the drain's deadline, or a second signal, waiting callers get 503 and streams an error event; the exit code is 0."""
    environ = {"SAGE_SERVER_DRAIN_TIMEOUT": timeout, "SAGE_LLM_SCRIPTED_LATENCY": "8s"}
    with running_agent(tmp_path, environ=environ) as agent:
        answers: dict[str, httpx.Response] = {}

        def ask(path: str) -> None:
            answers[path] = httpx.post(agent.url + path, json=BODY, timeout=30)

        callers = [threading.Thread(target=ask, args=(path,)) for path in ("/v1/messages", "/v1/messages/stream")]
        for thread in callers:
            thread.start()
        time.sleep(1.2)
        for _ in range(signals):
            agent.process.signal(signal.SIGTERM)
            time.sleep(0.1)
        assert agent.process.popen.wait(5) == 0
        for thread in callers:
            thread.join(5)
    whole, stream = answers["/v1/messages"], answers["/v1/messages/stream"]
    assert (whole.status_code, whole.json()["error"]["type"]) == (503, "unavailable")
    assert whole.headers["retry-after"] == "1"
    assert stream.status_code == 200
    assert stream.text.strip().split("\n\n")[-1].startswith("event: error")


def test_a_signal_at_the_very_end_changes_nothing(tmp_path: Path) -> None:
    """SIGTERM again and again from the first to the last moment: the exit code is 0, not the signal's."""
    with running_agent(tmp_path) as agent:
        while agent.process.exit_code is None:
            agent.process.signal(signal.SIGTERM)
            time.sleep(0.001)
        assert agent.process.exit_code == 0
