"""Profiles of real services, fetched by the tools people have."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from sage_obs.processes import Process, spawn, stop
from sage_obs.profiling import pprof
from tests.support.agents import BODY, read_lines, running_agent, start_agent
from tests.support.ports import free_port
from tests.support.pprof import GUIDE_LINES, go_pprof
from tests.support.services import wait_until

TOKEN = f"s3cret-{1 + 1}"
_SERVICE = """
import asyncio, multiprocessing, os, sys, time
import sage_obs

def spend():
    while True: sum(range(1000))

def child():
    spend()

if __name__ == "__main__":
    handle = sage_obs.instrument(profiling=True, libraries=[], strict=True)
    if sys.argv[1:] == ["children"]:
        for _ in range(2): multiprocessing.get_context("fork").Process(target=child, daemon=True).start()
    print("ready", flush=True)
    if sys.argv[1:] == ["forks"]:
        while True:
            if (pid := os.fork()) == 0: os._exit(0)
            os.waitpid(pid, 0)
    if sys.argv[1:] == ["exits"]:
        time.sleep(1.5); sys.exit(0)
    if sys.argv[1:] == ["idles"]:
        time.sleep(1000)
    spend()
"""


@contextmanager
def _service(folder: Path, *arguments: str, **environ: str) -> Iterator[tuple[Process, str]]:
    """A service that listens, and where its profiles are."""
    (folder / "service.py").write_text(_SERVICE)
    port = free_port()
    environment = {"SAGE_METRICS_HOST": "127.0.0.1", "SAGE_METRICS_PORT": "0", "SAGE_PROFILING_PORT": str(port), **environ}
    process = spawn("service", [sys.executable, str(folder / "service.py"), *arguments], log=folder / "log", environment=environment)
    try:
        wait_until(lambda: "ready" in process.tail(20) or process.exit_code is not None, says=lambda: process.tail(20))
        assert process.exit_code is None or arguments == ("exits",), process.tail(20)
        yield process, f"127.0.0.1:{port}/debug/pprof/"
    finally:
        stop([process], grace=2)
        with suppress(ProcessLookupError):  # the children that a service leaves: `spawn` has made it the leader of a group
            os.killpg(process.pid, signal.SIGKILL)


def _commands(port: int, seconds: int) -> Iterator[list[str]]:
    """The guide's commands, shorter and at another port; where it waits for what to type, that is given."""
    for line in GUIDE_LINES.replace(":6060", f":{port}").replace("seconds=30", f"seconds={seconds}").splitlines():
        yield ["sh", "-c", line.replace("curl", "curl --silent --show-error --fail-with-body")]


def test_the_guides_lines_work_against_the_agent(tmp_path: Path) -> None:
    """Each file opens in Go's tool and has something in it: the agent's own functions, types, tasks. Nothing had to be switched on."""
    with running_agent(tmp_path) as agent:
        ends = threading.Event()

        def call() -> None:
            with httpx.Client(trust_env=False) as client:
                while not ends.is_set():
                    client.post(f"{agent.url}/v1/messages", json=BODY)

        caller = threading.Thread(target=call)
        caller.start()
        try:
            for command in _commands(agent.start["profiling_port"], 3):
                if "go tool" not in command[-1]:
                    subprocess.run(command, cwd=tmp_path, check=True, timeout=30)
        finally:
            ends.set()
            caller.join()
        lines = [line["profile"] for line in agent.lines() if line["message"] == "profile fetched"]
    assert lines == ["profile", "heap", "goroutine"]
    assert "_run" in go_pprof("-top", "-cum", "cpu.prof", home=tmp_path)
    assert "builtins.dict" in go_pprof("-top", "mem.prof", home=tmp_path)
    assert "kind:  task" in go_pprof("-traces", "goroutine.prof", home=tmp_path)
    listed = go_pprof("-list", "DrainingServer.serve_on", "goroutine.prof", home=tmp_path)
    assert "run" in listed


def test_switched_off_it_is_off_in_the_agent_too(tmp_path: Path) -> None:
    """By its own variable, and by the one of the whole layer."""
    for variable in ("SAGE_PROFILING_ENABLED", "SAGE_OBSERVABILITY_ENABLED"):
        with running_agent(tmp_path, environ={variable: "false"}) as agent:
            assert "profiling_port" not in agent.start


def test_go_fetches_it_live_with_a_password(tmp_path: Path) -> None:
    """`go tool pprof http://any:TOKEN@…` works; without the token it prints why it does not."""
    with _service(tmp_path, SAGE_PROFILING_TOKEN=TOKEN) as (_, address):
        top = go_pprof("-top", f"http://any:{TOKEN}@{address}profile?seconds=1", home=tmp_path)
        refused = go_pprof("-top", f"http://{address}profile?seconds=1", home=tmp_path, code=2)
        delta = go_pprof("-raw", f"http://any:{TOKEN}@{address}goroutine?seconds=1", home=tmp_path)
    assert "spend" in top
    assert "The token of SAGE_PROFILING_TOKEN is needed" in refused
    assert "PeriodType: goroutine count" in delta


def test_go_fetches_it_over_tls(tmp_path: Path) -> None:
    """With a certificate of the service's own; plain HTTP gets nothing, and a client that never shakes hands holds nobody up."""
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2", *subject]
    subprocess.run(make, check=True, capture_output=True, timeout=60)
    variables = {"SAGE_PROFILING_CERTIFICATE": certificate, "SAGE_PROFILING_KEY": key, "SAGE_PROFILING_TOKEN": TOKEN}
    with _service(tmp_path, **variables) as (_, address):
        host, port = address.partition("/")[0].split(":")
        with socket.create_connection((host, int(port))):
            top = go_pprof("-top", f"https+insecure://any:{TOKEN}@{address}profile?seconds=1", home=tmp_path)
            trusting = ssl.create_default_context(cafile=certificate)
            trust = {**os.environ, "SAGE_PROFILING_TOKEN": TOKEN, "SSL_CERT_FILE": certificate}
            ours = [sys.executable, "-m", "sage_obs", "profile", "tasks", "--url", f"https://{host}:{port}"]
            believed = subprocess.run(ours, env=trust, capture_output=True, text=True, timeout=60, check=False)
            verified = httpx.get(f"https://{address}cmdline", auth=("any", TOKEN), verify=trusting, trust_env=False)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://{address}cmdline", trust_env=False)
    assert verified.status_code == 200
    assert "spend" in top
    assert "spend" in believed.stdout, believed.stderr


def test_forked_workers_are_asked_by_way_of_their_parent(tmp_path: Path) -> None:
    """The index lists them, `?pid=` is answered by the worker, token and format included, and one that is gone is not listed."""
    with _service(tmp_path, "children", SAGE_PROFILING_TOKEN=TOKEN) as (process, address):
        authorization = {"authorization": f"Bearer {TOKEN}"}

        def get(path: str) -> httpx.Response:
            return httpx.get(f"http://{address}{path}", headers=authorization, trust_env=False, timeout=30)

        def pids() -> list[int]:
            return [int(part.partition('"')[0]) for part in get("").text.split('href="?pid=')[1:]]

        wait_until(lambda: len(pids()) == 2)
        first, second = pids()
        profile = get(f"profile?seconds=1&pid={first}")
        assert profile.status_code == 200, profile.text
        names = {frame.name for sample in pprof.decode(profile.content).samples for frame in sample.stack}
        assert {"child", "spend"} <= names
        assert str(first) in get(f"?pid={first}").text
        assert get("profile?seconds=1&pid=1").status_code == 404
        os.kill(second, signal.SIGKILL)
        wait_until(lambda: pids() == [first])
        assert process.exit_code is None


def test_a_process_that_forks_all_the_time_is_profiled(tmp_path: Path) -> None:
    """Windows open over thousands of forks: no signal ends a child or the parent, and nothing is left behind."""
    with _service(tmp_path, "forks") as (process, address):
        for path in ("profile?seconds=2", "profile?seconds=2&mode=wall"):
            assert httpx.get(f"http://{address}{path}", trust_env=False, timeout=30).status_code == 200
        assert process.exit_code is None
        assert "Traceback" not in process.log.read_text()


@pytest.mark.parametrize("path", ["profile?seconds=60", "profile?seconds=60&mode=wall", "heap?seconds=60", "block?seconds=60"])
def test_a_process_that_exits_meanwhile_exits(tmp_path: Path, path: str) -> None:
    """Nobody waits for the window: the exit is as quick and as quiet as ever, and the client is told or cut off."""
    with _service(tmp_path, "exits") as (process, address):
        began = time.monotonic()
        with suppress(httpx.TransportError):
            assert httpx.get(f"http://{address}{path}", trust_env=False, timeout=30).status_code == 503
        process.popen.wait(10)
        assert process.exit_code == 0
        assert time.monotonic() - began < 5
        assert "Traceback" not in process.log.read_text()


def test_the_command_line_has_every_kind(tmp_path: Path) -> None:
    """Files in each format, a table, a difference, a page; nothing is overwritten unless it is forced; errors are sentences."""
    with _service(tmp_path, SAGE_PROFILING_TOKEN=TOKEN) as (process, address):
        url = f"http://{address.partition('/')[0]}"

        def run(*arguments: str, code: int = 0) -> str:
            command = [sys.executable, "-m", "sage_obs", "profile", *arguments]
            environ = {**os.environ, "SAGE_PROFILING_TOKEN": TOKEN, "BROWSER": "echo opened %s"}
            done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == code, done.stdout + done.stderr
            assert "Traceback" not in done.stderr
            return done.stdout + done.stderr

        run("cpu", "--url", url, "--seconds", "1", "-o", "a.pb.gz", "--flamegraph", "a.html")
        assert "exists" in run("cpu", "--url", url, "-o", "a.pb.gz", code=3)
        for kind in ("wall", "heap", "tasks", "block", "mutex"):
            run(kind, "--url", url, *(["--seconds", "1"] if kind in {"wall", "block"} else []), "-o", f"{kind}.pb.gz")
            assert "accounting for" in go_pprof("-top", f"{kind}.pb.gz", home=tmp_path)
        assert "spend" in run("top", "--url", url, "--seconds", "1")
        assert "cpu: 0.000 s" in run("diff", "a.pb.gz", "a.pb.gz")
        run("cpu", "--url", url, "--seconds", "2", "-o", "longer.pb.gz")
        assert "cpu: 0.000 s" in run("diff", "a.pb.gz", "longer.pb.gz", "--normalize")
        run("heap", "--url", url, "-o", "later.pb.gz")
        assert "inuse_space: " in run("diff", "heap.pb.gz", "later.pb.gz")
        assert "cannot be compared" in run("diff", "a.pb.gz", "heap.pb.gz", code=2)
        assert "ends in none of" in run("convert", "a.pb.gz", "b.svg", code=2)
        for name in ("b.txt", "b.speedscope.json", "b.html"):
            run("convert", "a.pb.gz", name)
        run("convert", "b.txt", "c.pb.gz")
        run("convert", "b.speedscope.json", "d.pb.gz")
        assert "spend" in go_pprof("-top", "c.pb.gz", home=tmp_path) + (tmp_path / "a.html").read_text()
        assert "no profile" in run("convert", "a.html", "e.pb.gz", code=2)
        assert "opened file:///" in run("tasks", "--url", url, "--open")
        captured = run("capture", "all", "--url", url, "--pid", str(process.pid), "--seconds", "1")
        assert {f"all/{kind}{suffix}" for kind in ("cpu", "wall", "tasks", "heap") for suffix in (".pb.gz", ".html")} <= set(
            captured.split()
        )
        assert "exists" in run("capture", "all", "--url", url, code=3)
        found = run("capture", "all", "--url", "http://127.0.0.1:1", "--pid", str(process.pid), "--seconds", "1", "--force", "--json")
        assert [json.loads(line)["kind"] for line in found.splitlines()] == ["tasks", "cpu", "wall"]
        outside = run("cpu", "--pid", str(process.pid), "--seconds", "1")
        assert "spend" in outside
        assert "MainThread" in run("tasks", "--pid", str(process.pid), "-o", "t.pb.gz") + go_pprof("-tags", "t.pb.gz", home=tmp_path)
        assert "cannot be seen from outside" in run("heap", "--pid", str(process.pid), code=2)
        assert "cannot look at process" in run("cpu", "--pid", str(2**22 - 1), "--seconds", "1", code=1)
    assert "Cannot fetch a profile" in run("cpu", "--url", url, "--seconds", "1", code=1)
    assert run("capture", "none", "--url", url, "--seconds", "1", code=1).count("Cannot fetch") == 1


class _Pyroscope(BaseHTTPRequestHandler):
    """A server that takes what is pushed and keeps the addresses it came to."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        _PUSHED.append((self.path, self.headers.get("authorization", "")))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing is worth a line."""


_PUSHED: list[tuple[str, str]] = []


@pytest.mark.system
def test_profiles_are_pushed_to_pyroscope(tmp_path: Path) -> None:
    """Within its ten seconds, with the password of the address; the process ends as quickly as ever while the server is gone."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Pyroscope)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://me:{TOKEN}@127.0.0.1:{server.server_address[1]}"
        with _service(tmp_path, SAGE_PROFILING_SERVER=address, OTEL_SERVICE_NAME="shop") as (process, _):
            wait_until(lambda: bool(_PUSHED), seconds=30, says=lambda: process.tail(20))
            server.shutdown()
            server.server_close()
            assert TOKEN not in process.log.read_text()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert _PUSHED[0][1].startswith("Basic ")


def test_the_agents_workers_are_asked_on_one_port_which_outlives_each(tmp_path: Path) -> None:
    """Of two workers one has the port and passes on what is asked of the other; when it dies another one has it within moments."""
    port = free_port()
    environ = {"SAGE_SERVER_WORKERS": "2", "SAGE_PROFILING_PORT": str(port)}
    process = start_agent(tmp_path, environ=environ)
    address = f"http://127.0.0.1:{port}/debug/pprof/"

    def index() -> tuple[int, list[int]]:
        try:
            page = httpx.get(address, trust_env=False).text
        except httpx.TransportError:
            return 0, []
        return int(page.partition("Process ")[2].partition(".")[0]), [int(one.partition('"')[0]) for one in page.split('href="?pid=')[1:]]

    try:
        wait_until(lambda: sum(line["message"] == "agent listening" for line in read_lines(process)) == 2, says=lambda: process.tail(20))
        wait_until(lambda: len(index()[1]) == 1, says=lambda: process.tail(20))
        holder, (other,) = index()
        profile = httpx.get(f"{address}goroutine?pid={other}", trust_env=False)
        assert profile.status_code == 200
        assert pprof.decode(profile.content).total() > 0
        os.kill(holder, signal.SIGKILL)
        wait_until(lambda: index()[0] not in {0, holder} and len(index()[1]) == 1, says=lambda: process.tail(20))
    finally:
        stop([process], grace=5)
