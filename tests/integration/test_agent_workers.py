"""Several workers on one port: real processes and signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from sage_obs.processes import Process, stop
from tests.support.agents import BODY, start_agent
from tests.support.ports import free_port


@dataclass
class Crew:
    """An agent with workers: its supervisor's process, its address, its metrics' address."""

    process: Process
    url: str
    ops: str

    def lines(self, message: str) -> list[dict[str, Any]]:
        """The log's lines with this message."""
        whole = self.process.log.read_text().rpartition("\n")[0]
        return [line for line in map(json.loads, whole.splitlines()) if line["message"] == message]

    def wait_for(self, message: str, count: int) -> list[dict[str, Any]]:
        """The lines with this message, once there are so many."""
        deadline = time.monotonic() + 30
        while len(found := self.lines(message)) < count:
            assert time.monotonic() < deadline, self.process.tail(20)
            assert self.process.exit_code is None, self.process.tail(20)
            time.sleep(0.02)
        return found

    def workers(self) -> list[int]:
        """The process ids of its workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(child) for child in children.split()]

    def total(self, name: str) -> float:
        """The sum of a metric over all its labels."""
        lines = httpx.get(f"{self.ops}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{"))


@contextmanager
def _crew(folder: Path, more: Mapping[str, str] | None = None) -> Iterator[Crew]:
    port, ops = free_port(), free_port()
    environ = {"SAGE_SERVER_PORT": str(port), "SAGE_METRICS_PORT": str(ops), "SAGE_LLM_SCRIPTED_LATENCY": "0.01", **(more or {})}
    process = start_agent(folder, environ=environ, arguments=("--workers", "2"))
    crew = Crew(process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{ops}")
    try:
        crew.wait_for("agent listening", 2)
        yield crew
    finally:
        stop([process], grace=10.0)


@contextmanager
def _load(url: str) -> Iterator[Counter[str]]:
    """Eight callers that ask one message after the other, half of them on a new connection each time; how it went, by name."""
    results: Counter[str] = Counter()
    over = threading.Event()

    async def call(client: httpx.AsyncClient) -> None:
        while not over.is_set():
            try:
                answer = await client.post(f"{url}/v1/messages", json=BODY)
                results["ok" if answer.status_code == httpx.codes.OK else str(answer.status_code)] += 1
            except httpx.TransportError as exc:
                results[f"{type(exc).__name__}"] += 1

    async def run() -> None:
        fresh = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(timeout=10) as keeping, httpx.AsyncClient(timeout=10, limits=fresh) as other:
            await asyncio.gather(*(call(client) for client in (keeping, other) for _ in range(4)))

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        yield results
    finally:
        over.set()
        thread.join(20)


def test_workers_share_a_port_and_are_one_scrape(tmp_path: Path) -> None:
    """Each worker gets its part of the connections, their counts are one sum, and their bounds together are the agent's."""
    with _crew(tmp_path) as crew:
        answered: Counter[int] = Counter()
        for _ in range(10):
            with httpx.Client() as client:
                assert client.post(f"{crew.url}/v1/messages", json=BODY).status_code == httpx.codes.OK
        with _load(crew.url) as results:
            deadline = time.monotonic() + 10
            while results["ok"] < 300 and time.monotonic() < deadline:
                time.sleep(0.05)
        assert set(results) == {"ok"}
        assert crew.total("sage_agent_requests_total") == results["ok"] + 10
        assert crew.total("sage_agent_workers") == 100
        assert httpx.get(f"{crew.url}/health/ready").json()["status"] == "healthy"
        for pid in crew.workers():
            times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            answered[pid] = int(times[11]) + int(times[12])
        assert len(answered) == 2
        assert min(answered.values()) > 0.2 * max(answered.values())


def test_a_worker_that_is_killed_is_replaced_and_what_it_counted_stays(tmp_path: Path) -> None:
    """After a kill -9 there are as many workers as before, and no counter has fallen."""
    with _crew(tmp_path) as crew:
        for _ in range(20):
            httpx.post(f"{crew.url}/v1/messages", json=BODY).raise_for_status()
        before = crew.workers()
        os.kill(before[0], signal.SIGKILL)
        crew.wait_for("a worker has ended", 1)
        crew.wait_for("agent listening", 3)
        after = crew.workers()
        assert len(after) == 2
        assert before[0] not in after
        httpx.post(f"{crew.url}/v1/messages", json=BODY).raise_for_status()
        deadline = time.monotonic() + 10
        while True:
            try:
                total = crew.total("sage_agent_requests_total")
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert total == 21


def test_workers_are_renewed_one_by_one_without_a_failed_request(tmp_path: Path) -> None:
    """SIGHUP under load: every worker is another process afterwards, and every request was answered."""
    with _crew(tmp_path) as crew, _load(crew.url) as results:
        before = crew.workers()
        deadline = time.monotonic() + 10
        while results["ok"] < 50:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        crew.process.signal(signal.SIGHUP)
        crew.wait_for("workers are renewed", 1)
        after = crew.workers()
        seen = results["ok"]
        while results["ok"] < seen + 50:
            assert time.monotonic() < deadline + 30
            time.sleep(0.02)
    assert not set(before) & set(after)
    assert set(results) == {"ok"}


def test_the_end_of_the_supervisor_is_the_end_of_its_workers(tmp_path: Path) -> None:
    """SIGTERM drains them and exits 0; a kill -9 leaves nobody behind."""
    with _crew(tmp_path) as crew:
        crew.process.signal(signal.SIGTERM)
        assert crew.process.popen.wait(15) == 0
        assert len(crew.lines("agent stopped")) == 2
    (tmp_path / "again").mkdir()
    with _crew(tmp_path / "again") as crew:
        workers = crew.workers()
        crew.process.signal(signal.SIGKILL)
        crew.process.popen.wait(5)
        deadline = time.monotonic() + 15
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_what_a_killed_supervisor_left_is_swept_by_the_next(tmp_path: Path) -> None:
    """The memory in which its workers counted is given back; what another one holds is not touched."""

    def folder_of(crew: Crew) -> Path:
        environ = Path(f"/proc/{crew.workers()[0]}/environ").read_text().split("\0")
        (found,) = [one.partition("=")[2] for one in environ if one.startswith("SAGE_MULTIPROCESS_DIR=")]
        return Path(found)

    for name in ("killed", "running", "next"):
        (tmp_path / name).mkdir()
    with _crew(tmp_path / "killed") as crew:
        left = folder_of(crew)
        crew.process.signal(signal.SIGKILL)
        crew.process.popen.wait(5)
    with _crew(tmp_path / "running") as running:
        held = folder_of(running)
        for folder in (left, held):
            os.utime(folder, (0, 0))
        assert left.exists()
        with _crew(tmp_path / "next"):
            assert not left.exists()
            assert held.exists()
    assert not held.exists()


@pytest.mark.parametrize("workers", [2])
def test_workers_that_cannot_start_end_the_supervisor(tmp_path: Path, workers: int) -> None:
    """A store that cannot be used is said by the worker, and the exit code is the worker's."""
    environ = {"SAGE_STORAGE_TYPE": "redis", "SAGE_STORAGE_PORT": str(free_port()), "SAGE_STORAGE_TIMEOUT": "1s"}
    process = start_agent(tmp_path, environ=environ, arguments=("--workers", str(workers)))
    assert process.popen.wait(30) == 1
    assert "Where state is kept cannot be used" in process.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_at_once_cuts_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C in a terminal and systemd reach the workers, too: what is in flight is answered all the same."""
    with _crew(tmp_path, {"SAGE_LLM_SCRIPTED_LATENCY": "2s"}) as crew:
        asked = threading.Event()
        answers: list[int] = []

        def ask() -> None:
            with httpx.stream("POST", f"{crew.url}/v1/messages/stream", json=BODY, timeout=20) as answer:
                asked.set()
                answers.append(answer.read().count(b"event: done"))

        thread = threading.Thread(target=ask)
        thread.start()
        assert asked.wait(10)
        os.killpg(crew.process.pid, number)
        thread.join(20)
        assert crew.process.popen.wait(15) == 0
        assert answers == [1]
        assert [line["cut_requests"] for line in crew.lines("agent stopped")] == [0, 0]
        assert crew.lines("a worker has ended") == []


def test_a_second_signal_to_the_supervisor_cuts_what_is_left(tmp_path: Path) -> None:
    """Its workers are told to, and end with it."""
    with _crew(tmp_path, {"SAGE_LLM_SCRIPTED_LATENCY": "30s"}) as crew:
        thread = threading.Thread(target=lambda: httpx.post(f"{crew.url}/v1/messages", json=BODY, timeout=20))
        thread.start()
        deadline = time.monotonic() + 10
        while crew.total("sage_agent_requests_in_flight") < 1:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        crew.process.signal(signal.SIGTERM)
        crew.wait_for("agent draining", 2)
        crew.process.signal(signal.SIGTERM)
        assert crew.process.popen.wait(10) == 0
        thread.join(10)
        assert sorted(line["cut_requests"] for line in crew.lines("agent stopped")) == [0, 1]


def test_a_renewal_that_cannot_be_is_given_up(tmp_path: Path) -> None:
    """Settings that are broken by then: three starts are tried, with pauses, and the workers before go on."""
    (tmp_path / "config.yaml").write_text("llm: {timeout: 30}\n")
    with _crew(tmp_path) as crew:
        before = crew.workers()
        (tmp_path / "config.yaml").write_text("llm: {tmeout: 30}\n")
        crew.process.signal(signal.SIGHUP)
        log = crew.process.log
        deadline = time.monotonic() + 30
        while not any("workers are not renewed; the ones before stay" in line for line in log.read_text().splitlines()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert sum('"a worker has ended"' in line for line in log.read_text().splitlines()) == 3
        assert sorted(crew.workers()) == sorted(before)
        assert httpx.post(f"{crew.url}/v1/messages", json=BODY).status_code == httpx.codes.OK


def test_a_worker_that_hangs_does_not_keep_the_supervisor(tmp_path: Path) -> None:
    """Told to stop, it is killed once it can no longer be draining."""
    with _crew(tmp_path, {"SAGE_SERVER_DRAIN_TIMEOUT": "500ms"}) as crew:
        os.kill(crew.workers()[0], signal.SIGSTOP)
        crew.process.signal(signal.SIGTERM)
        assert crew.process.popen.wait(30) == 0
        assert len(crew.lines("a worker did not stop in time")) == 1


def test_workers_that_could_not_be_watched_are_not_started(tmp_path: Path) -> None:
    """The metrics port is another process's: that is said, and is the end."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start_agent(tmp_path, environ={"SAGE_METRICS_PORT": str(port)}, arguments=("--workers", "2"))
        assert process.popen.wait(20) == 1
    assert f"Metrics and health cannot be served on 127.0.0.1:{port}" in process.tail()


def test_an_admin_changes_every_worker(tmp_path: Path) -> None:
    """Level, rate and cache reach both, and workers that come later; the drain ends all, and each answer says how many took it."""
    secret = "a token of the administrators"  # noqa: S105 - a test's
    token = {"authorization": f"Bearer {secret}"}
    wanted = {"SAGE_ADMIN_ENABLED": "true", "SAGE_ADMIN_TOKEN": secret, "SAGE_TRACING_ENABLED": "true", "SAGE_CACHE_ENABLED": "true"}
    with _crew(tmp_path, wanted) as crew:

        def change(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
            answer = httpx.request(method, f"{crew.url}/admin/{path}", json=body, headers=token).raise_for_status()
            found: dict[str, Any] = answer.json()
            return found

        def infos(count: int) -> dict[int, tuple[str, float]]:
            """What each worker says of itself: a new connection each time, until as many have answered."""
            found: dict[int, tuple[str, float]] = {}
            deadline = time.monotonic() + 20
            while len(found) < count:
                assert time.monotonic() < deadline
                said = change("GET", "info")
                found[said["pid"]] = (said["log_level"], said["sampling_rate"])
            return found

        both = {"asked": 2, "took": 2}
        assert change("PUT", "log-level", {"level": "warning"})["workers"] == both
        assert change("PUT", "tracing", {"sampling_rate": 0.25})["workers"] == both
        assert change("POST", "cache/clear")["workers"] == both
        before = infos(2)
        assert set(before.values()) == {("warning", 0.25)}
        os.kill(min(before), signal.SIGKILL)
        deadline = time.monotonic() + 20
        while set(infos(2)) == set(before) or set(infos(2).values()) != {("warning", 0.25)}:
            assert time.monotonic() < deadline
        os.kill(max(before), signal.SIGSTOP)
        try:
            assert change("PUT", "log-level", {"level": "info"})["workers"] == {"asked": 2, "took": 1}
        finally:
            os.kill(max(before), signal.SIGCONT)
        assert change("POST", "drain")["workers"] == both
        assert crew.process.popen.wait(20) == 0


_HASTY = """
import socket, sys, time
from sage_agent.server.workers import Crew
listener = socket.create_server(("127.0.0.1", 0))
crew = Crew([sys.executable, "-S", "-c", sys.argv[1], *sys.argv[2:]], 1, listener.fileno(), {}, clock=lambda: 50 * time.monotonic())
sys.exit(crew.run())
"""
"""A supervisor whose time passes quickly, and what its workers run."""

_ONCE = """
import os, pathlib, socket, sys
with open(sys.argv[1], "a") as marks:
    marks.write("x")
if pathlib.Path(sys.argv[1]).stat().st_size > 1:
    sys.exit(7)
socket.socket(fileno=int(os.environ["SAGE_SUPERVISOR_FD"])).send(b'{"say": "ready"}')
"""


def test_workers_that_fail_again_and_again_are_the_end(tmp_path: Path) -> None:
    """One that was ready is replaced; ten in a row that end before they are ready end the supervisor, with their exit code."""
    command = [sys.executable, "-c", _HASTY, _ONCE, str(tmp_path / "marks")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 7, done.stderr
    assert (tmp_path / "marks").read_text() == "x" * 11


_SILENT = """
import os, socket, sys, time
with open(sys.argv[1], "a") as marks:
    marks.write("x")
line = socket.socket(fileno=int(os.environ["SAGE_SUPERVISOR_FD"]))
line.send(b'{"say": "ready"}')
while os.path.getsize(sys.argv[1]) > 1:
    line.send(b'{"say": "alive"}')
    time.sleep(0.01)
time.sleep(60)
"""


def test_a_worker_that_hangs_is_replaced(tmp_path: Path) -> None:
    """One that has not said for long that its event loop goes round is killed; one that does stays."""
    command = [sys.executable, "-c", _HASTY, _SILENT, str(tmp_path / "marks")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stderr is not None
        lines = [supervisor.stderr.readline() for _ in range(2)]
        with pytest.raises(subprocess.TimeoutExpired):
            supervisor.wait(2)
        supervisor.terminate()
        assert supervisor.wait(10) == 0
    assert lines == ["a worker hangs\n", "a worker has ended\n"]
    assert (tmp_path / "marks").read_text() == "xx"


def test_a_terminal_that_is_closed_cuts_nothing(tmp_path: Path) -> None:
    """SIGHUP to all processes at once: the supervisor renews its workers, and these answer what is in flight."""
    with _crew(tmp_path, {"SAGE_LLM_SCRIPTED_LATENCY": "2s"}) as crew:
        with httpx.stream("POST", f"{crew.url}/v1/messages/stream", json=BODY, timeout=20) as answer:
            os.killpg(crew.process.pid, signal.SIGHUP)
            assert answer.read().count(b"event: done") == 1
        crew.wait_for("workers are renewed", 1)
        assert crew.lines("a worker has ended") == []
