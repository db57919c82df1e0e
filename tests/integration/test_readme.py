"""The README, executed: the two commands, the ten lines, and every other command it shows."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from sage_obs.platforms.local.supervisor import answers
from sage_obs.stack.ports import Ports

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


def _blocks(language: str) -> list[str]:
    """The README's fenced blocks in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def _block(containing: str) -> list[str]:
    """The lines of the one shell block that holds this text."""
    (block,) = (block for block in _blocks("sh") if containing in block)
    return block.splitlines()


@contextmanager
def _running(command: list[str], *, cwd: Path, environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command, cwd=cwd, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def _until(done: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 150
    while not done():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_make_up_runs_and_the_lines_under_it_pass_as_written(tmp_path: Path) -> None:
    """`make up` sets up a fresh environment and the stack on the default ports; then every line runs exactly as the README has it."""
    commands = _block("curl")
    assert len(commands) == 3
    state, venv = tmp_path / "state", tmp_path / "venv"
    make, test = _block("make up")
    assert test == "make test"
    environ = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    with _running([*shlex.split(make), f"VENV={venv}", f"ARGS=--state {state}"], cwd=ROOT, environ=environ) as process:
        _until((state / "stack.json").exists, process)
        for command in commands:
            words = shlex.split(command.replace(".venv/bin", str(venv / "bin")))
            words += ["--state", str(state)] if "sage-obs" in command else ["--fail", "--silent", "--show-error"]
            result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
            assert result.returncode in ((0, 7) if "runbook" in command else (0,)), result.stdout + result.stderr


def test_the_ten_lines_give_what_is_promised(tmp_path: Path) -> None:
    """The README's program, run as it stands but for its ports: a greeting, metrics, health, JSON lines, and an exit within 2 s."""
    (program,) = _blocks("python")
    assert "port=8000" in program
    ports = Ports("any")
    port, ops = ports.take("app", 0), ports.take("metrics", 0)
    (tmp_path / "ten.py").write_text(program.replace("port=8000", f"port={port}"))
    environ = {**os.environ, "SAGE_METRICS_PORT": str(ops)}
    with _running([sys.executable, "ten.py"], cwd=tmp_path, environ=environ) as process:
        _until(lambda: answers(f"http://127.0.0.1:{port}/health/startup"), process)
        answer = httpx.get(f"http://127.0.0.1:{port}/hello/World", headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
        assert answer.text == "Hello, World!"
        assert httpx.get(f"http://127.0.0.1:{ops}/health/ready").json()["status"] == "healthy"
        assert 'operation="GET /hello/{name}",outcome="success",protocol="http"} 1.0' in httpx.get(f"http://127.0.0.1:{ops}/metrics").text
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        said, _ = process.communicate(timeout=10)
        assert time.monotonic() - started < 2
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    (access,) = (line for line in lines if line["message"] == "GET /hello/World 200")
    assert access["trace_id"] == "a" * 32
    assert list(access)[:3] == ["timestamp", "level", "message"]


def test_the_other_commands_run(tmp_path: Path) -> None:
    """Every line of the command block works in an empty folder."""
    for command in _block("sage-obs alerts export"):
        program, *arguments = shlex.split(command)
        result = subprocess.run([BIN / program, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False)
        assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    assert (tmp_path / "dashboards/sage-fleet.json").exists()
    assert (tmp_path / "alerts/sage-rollback.yml").exists()


def test_every_folder_the_readme_names_exists() -> None:
    """The map and the links lead somewhere."""
    text = (ROOT / "README.md").read_text()
    linked = re.findall(r"\]\(([^)#]+)\)", text)
    named = re.findall(r"^\| ((?:`[a-z_]+/`(?:, )?)+)", text, re.MULTILINE)
    folders = [folder for group in named for folder in re.findall(r"`([a-z_]+/)`", group)]
    assert len(folders) >= 7
    assert [path for path in (*linked, *folders) if not (ROOT / path).exists()] == []
