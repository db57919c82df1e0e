"""`sage-obs up`, for real: started as a user does, looked at, broken, and stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sage_obs.conventions import ERRORS, LLM_CALLS, LLM_TOKENS, REQUEST_DURATION, REQUESTS
from sage_obs.stack.state import read_note

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]
GUIDE = (REQUESTS, REQUEST_DURATION, ERRORS, LLM_CALLS, LLM_TOKENS)
"""The deployment guide's five key metrics."""
COMMAND = (sys.executable, "-m", "sage_obs")


class Up:
    """A running `sage-obs up` and what its table says."""

    def __init__(self, process: subprocess.Popen[str], state: Path) -> None:
        self.process = process
        self.state = state
        assert process.stdout is not None
        self.rows: list[dict[str, Any]] = []
        while len(self.rows) < 6 and (line := process.stdout.readline()):
            self.rows.append(json.loads(line))
        assert len(self.rows) == 6, process.stderr and process.stderr.read()

    def pid(self, part: str) -> int:
        """The process id of a part."""
        return next(int(row["pid"]) for row in self.rows if row["part"].startswith(part))

    def address(self, part: str) -> str:
        """Where a part answers."""
        return next(str(row["address"]) for row in self.rows if row["part"].startswith(part))

    def end(self) -> tuple[int, str]:
        """Wait for the command to end: its exit code and what it said on stderr."""
        _, err = self.process.communicate(timeout=30)
        return self.process.returncode, err

    def all_gone(self) -> bool:
        """Whether no part runs any more."""
        return not any(_runs(row["pid"]) for row in self.rows)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def _up(state: Path, *arguments: str, environ: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    command = [*COMMAND, "up", "--state", str(state), "--json", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(environ or {})}
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="module")
def binaries() -> Path:
    """The state folder that holds Prometheus and Alertmanager already, so that each stack need not fetch them."""
    from sage_obs.stack import binaries

    for name in binaries.NAMES:
        binaries.find(name)
    return Path(".sage-obs/bin").absolute()


def _state(folder: Path, binaries: Path) -> Path:
    (folder / "state").mkdir()
    (folder / "state/bin").symlink_to(binaries)
    return folder / "state"


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - loopback
        return str(response.read().decode())


def _until(done: Callable[[], bool], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_everything_runs_and_stops_on_a_signal(tmp_path: Path, binaries: Path, number: signal.Signals) -> None:
    """Each part answers where the table says; one signal ends them all, with exit code 0 and no note left."""
    with _up(_state(tmp_path, binaries), "--ports", "any", "--profile", "drill") as process:
        up = Up(process, tmp_path / "state")
        assert json.loads(_get(up.address("agent 0") + "/health/ready"))["status"] == "healthy"
        _until(lambda: all(f"\n{metric.series[-1]}{{" in _get(up.address("agent metrics")) for metric in GUIDE))
        targets = up.address("prometheus") + "/api/v1/targets?state=active"
        _until(lambda: {one["health"] for one in json.loads(_get(targets))["data"]["activeTargets"]} == {"up"})
        rules = json.loads(_get(up.address("prometheus") + "/api/v1/rules"))["data"]["groups"]
        assert {rule["health"] for group in rules for rule in group["rules"]} <= {"ok", "unknown"}
        note = read_note(tmp_path / "state")
        assert note is not None
        assert note.prometheus_url == up.address("prometheus")
        process.send_signal(number)
        code, said = up.end()
    assert code == 0, said
    assert up.all_gone()
    assert read_note(tmp_path / "state") is None


@pytest.mark.parametrize("part", ["agent 0", "prometheus", "alertmanager", "responder"])
def test_the_death_of_a_child_stops_the_others(tmp_path: Path, binaries: Path, part: str) -> None:
    """What the table says is always true: with one part gone, all are stopped and the message names it."""
    with _up(_state(tmp_path, binaries), "--ports", "any") as process:
        up = Up(process, tmp_path / "state")
        os.kill(up.pid(part), signal.SIGKILL)
        code, said = up.end()
    assert code == 1
    assert f"(pid {up.pid(part)}) was ended by SIGKILL" in said
    assert up.all_gone()


def test_a_taken_port_names_the_process_that_has_it(tmp_path: Path, binaries: Path) -> None:
    """By default a taken port is an error with its owner and the way out; with `--ports next` the stack takes another."""
    state = _state(tmp_path, binaries)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        others = ["--port", "metrics=0", "--port", "prometheus=0", "--port", "alertmanager=0", "--port", "responder=0"]
        with _up(state, "--port", f"agent={port}", *others) as process:
            _, said = process.communicate(timeout=30)
        assert process.returncode == 1
        assert f"Port {port}, wanted for agent, is taken by" in said
        assert f"(pid {os.getpid()})" in said
        assert "--ports next" in said
        with _up(state, "--ports", "next", "--port", f"agent={port}", *others) as process:
            assert int(Up(process, state).address("agent 0").rpartition(":")[2]) > port


def test_a_second_stack_on_the_same_folder_is_refused(tmp_path: Path, binaries: Path) -> None:
    """Two supervisors would fight over one platform; the second is told who runs."""
    state = _state(tmp_path, binaries)
    with _up(state, "--ports", "any") as first:
        Up(first, state)
        with _up(state, "--ports", "any") as second:
            _, said = second.communicate(timeout=30)
        assert second.returncode == 5
        assert f"already runs on {state} (pid {first.pid})" in said


def test_without_prometheus_the_stack_runs_degraded_and_says_so(tmp_path: Path) -> None:
    """Where neither PATH nor packages have the servers, the agent and its traffic still run."""
    tools = tmp_path / "path"
    tools.mkdir()
    with _up(tmp_path / "state", "--ports", "any", environ={"PATH": str(tools)}) as process:
        assert process.stdout is not None
        rows = [json.loads(process.stdout.readline()) for _ in range(3)]
        assert [row["part"].split()[0] for row in rows] == ["agent", "agent", "traffic"]
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Cannot get prometheus: it is not on PATH and this system has no apt-get" in said
    assert "Going on without them" in said


def test_after_a_crash_the_stack_goes_on_with_what_ran_last(tmp_path: Path, binaries: Path) -> None:
    """Killed with -9, it leaves no lock and no child; started again, it goes on with the deployed release and says so."""
    state = _state(tmp_path, binaries)
    (tmp_path / "other.yaml").write_text("llm: {scripted: {latency: 5ms}}\n")
    with _up(state, "--ports", "any") as process:
        up = Up(process, state)
        release = [*COMMAND, "release"]
        subprocess.run(
            [*release, "create", "2.0.0", "--config", str(tmp_path / "other.yaml"), "--state", str(state)], check=True, timeout=30
        )
        subprocess.run([*release, "deploy", "2.0.0", "--state", str(state)], check=True, timeout=30)
        process.kill()
        process.wait(10)
        _until(up.all_gone)
    assert read_note(state) is None
    with _up(state, "--ports", "any") as process:
        assert Up(process, state).rows[0]["part"] == "agent 2.0.0"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert "going on with 2.0.0, which the platform last wanted" in said
    assert said.count("is starting") == 1


def test_a_release_known_to_be_bad_does_not_go_on(tmp_path: Path, binaries: Path) -> None:
    """A stack started anew does not bring back what was marked bad, and says so."""
    state = _state(tmp_path, binaries)
    (tmp_path / "other.yaml").write_text("llm: {scripted: {latency: 5ms}}\n")
    with _up(state, "--ports", "any", "--version", "9.0.0", "--config", str(tmp_path / "other.yaml")) as process:
        assert Up(process, state).rows[0]["part"] == "agent 9.0.0"
        subprocess.run([*COMMAND, "release", "mark-bad", "9.0.0", "--reason", "t", "--state", str(state)], check=True, timeout=30)
    with _up(state, "--ports", "any") as process:
        assert Up(process, state).rows[0]["part"] != "agent 9.0.0"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert "9.0.0 ran last and is known to be bad" in said


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--port", "agent=²"], 2, "is not NAME=N"),
        (["--port", "agnet=1"], 2, "Names: agent, metrics"),
        (["--rate", "nan"], 2, "expected a finite number"),
        (["--config", "{tmp}/unknown.yaml"], 1, "unknown key `llm.provder` (did you mean `llm.provider`?)"),
        (["--config", "{tmp}/binary.yaml"], 2, "is not UTF-8 text"),
        (["--state", "/dev/null/x"], 1, "Not a directory"),
    ],
)
def test_bad_input_is_answered_in_words(tmp_path: Path, binaries: Path, arguments: list[str], code: int, words: str) -> None:
    """No traceback, the documented exit code, and what the agent itself had to say about its configuration."""
    (tmp_path / "unknown.yaml").write_text("llm: {provder: scripted}\n")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with _up(_state(tmp_path, binaries), "--ports", "any", *(one.replace("{tmp}", str(tmp_path)) for one in arguments)) as process:
        _, said = process.communicate(timeout=30)
    assert process.returncode == code, said
    assert words in said
    assert "Traceback" not in said
