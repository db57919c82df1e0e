"""Child processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sage_obs.errors import UnavailableError
from sage_obs.processes import spawn, stop


def test_a_child_writes_to_its_log_and_its_end_is_explained(tmp_path: Path) -> None:
    """The error about a dead child holds its exit code and its last words."""
    child = spawn("worker", [sys.executable, "-c", "print('cannot go on'); raise SystemExit(3)"], log=tmp_path / "worker.log")
    child.popen.wait(10)
    assert "worker" in child.died().message
    assert "exited with code 3. Its last words:\ncannot go on" in child.died().message


def test_a_command_that_does_not_exist_is_an_error_that_names_it(tmp_path: Path) -> None:
    """No traceback from the depth of subprocess."""
    with pytest.raises(UnavailableError, match=r"Cannot start worker: No such file or directory \(/no/such\)"):
        spawn("worker", ["/no/such"], log=tmp_path / "log")


def test_stop_ends_the_stubborn_too(tmp_path: Path) -> None:
    """A child that ignores SIGTERM is killed after the grace, the willing one is not."""
    stubborn = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('armed', flush=True); time.sleep(60)"
    children = [spawn("a", [sys.executable, "-c", stubborn], log=tmp_path / "a"), spawn("b", ["sleep", "60"], log=tmp_path / "b")]
    while "armed" not in children[0].tail():
        time.sleep(0.01)
    stop(children, grace=0.2)
    assert [child.exit_code for child in children] == [-signal.SIGKILL, -signal.SIGTERM]


def test_a_listening_socket_is_handed_over_as_descriptor_three(tmp_path: Path) -> None:
    """The child finds the socket where systemd's protocol says, whatever its number here."""
    code = "import os,socket; s=socket.socket(fileno=3); print(os.environ['LISTEN_FDS'], s.getsockname()[1])"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = spawn("c", [sys.executable, "-c", code], log=tmp_path / "c", listener=listener.fileno())
        child.popen.wait(10)
        assert child.tail() == f"1 {listener.getsockname()[1]}"


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    """Even a parent ended by SIGKILL leaves no child behind."""
    code = (
        "import sys, time; from pathlib import Path; from sage_obs.processes import spawn\n"
        f"print(spawn('c', ['sleep', '60'], log=Path({str(tmp_path / 'c')!r})).pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 5
    while _runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (OSError, IndexError):
        return False
