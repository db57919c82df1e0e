"""`sage-obs responder serve` as another process: real HTTP, real signals, and the state it leaves."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sage_obs.runbooks import journal, runs
from sage_obs.runbooks.progress import fold
from tests.support.alertmanager import alert, notification


@contextmanager
def _serving(state: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [
        sys.executable,
        "-m",
        "sage_obs",
        "responder",
        "serve",
        "--state",
        str(state),
        "--port",
        "0",
        "--profile",
        "drill",
        *arguments,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().split()[-1]
        finally:
            process.kill()


def _ask(url: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310 - loopback
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - loopback
            return response.status, response.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


def _raw(url: str, request: bytes) -> bytes:
    parts = urllib.parse.urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while data := connection.recv(65536):
            answer += data
        return answer


def _until(done: object, *, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not done():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_takes_alerts_only_with_its_token_and_serves_health_metrics_and_pages(tmp_path: Path) -> None:
    """401 without the token, 202 with it and the alert on disk, 400 for what is none; SIGTERM ends it with 0 at once."""
    (tmp_path / "token").write_text("s3cret\n")
    with _serving(tmp_path / "state", "--token-file", str(tmp_path / "token")) as (process, url):
        assert _ask(f"{url}/health/ready")[0] == 200
        assert "sage_obs_runbook_runs_total" in _ask(f"{url}/metrics")[1]
        assert "Rollback" in _ask(f"{url}/runbooks/rollback.md")[1]
        assert _ask(f"{url}/alerts", notification(alert()))[0] == 401
        assert _ask(f"{url}/alerts", b"{}", Authorization="Bearer s3cret")[0] == 400
        assert _ask(f"{url}/alerts", notification(alert()), Authorization="Bearer s3cret")[0] == 202
        kept = (tmp_path / "state/responder/inbox.jsonl").read_text().splitlines()
        assert json.loads(kept[0])["notice"]["alerts"] == ["SageRollbackErrorRate"]
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert time.monotonic() - began < 4


def test_bodies_without_a_length_or_too_large_are_refused(tmp_path: Path) -> None:
    """411 and 413, without reading the body; the server goes on answering."""
    with _serving(tmp_path / "state") as (_, url):
        head = b"POST /alerts HTTP/1.1\r\nHost: x\r\n"
        assert b" 411 " in _raw(url, head + b"\r\n").splitlines()[0]
        assert b" 413 " in _raw(url, head + b"Content-Length: 99999999999\r\n\r\n").splitlines()[0]
        assert b" 411 " in _raw(url, head + b"Content-Length: -5\r\n\r\n").splitlines()[0]
        assert _ask(f"{url}/other", b"{}")[0] == 404
        assert _ask(f"{url}/health/live")[0] == 200


def test_an_alert_survives_the_death_of_the_responder(tmp_path: Path) -> None:
    """Killed with -9 right after it said 202, the next one answers the alert, once."""
    state = tmp_path / "state"
    with _serving(state) as (process, url):
        assert _ask(f"{url}/alerts", notification(alert()))[0] == 202
        process.kill()
        process.wait()
    with _serving(state) as (_, url):
        _until(lambda: '"handled"' in (state / "responder/inbox.jsonl").read_text())
        assert _ask(f"{url}/alerts", notification(alert()))[1].startswith('{"accepted": false')
    found = [fold(journal.read(folder)) for folder in runs.folders(state)]
    assert len(found) == 1
    assert found[0].outcome is not None


def test_a_taken_port_and_a_bad_token_file_are_errors(tmp_path: Path) -> None:
    """What is wrong, and what to do about it."""
    command = [sys.executable, "-m", "sage_obs", "responder", "serve", "--state", str(tmp_path / "state")]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        taken = subprocess.run([*command, "--port", port], capture_output=True, text=True, timeout=30, check=False)
    assert (taken.returncode, f"Cannot listen on 127.0.0.1:{port}" in taken.stderr) == (1, True), taken.stderr
    (tmp_path / "token").write_text("\n")
    empty = subprocess.run([*command, "--token-file", str(tmp_path / "token")], capture_output=True, text=True, timeout=30, check=False)
    assert (empty.returncode, "is empty" in empty.stderr) == (2, True), empty.stderr
