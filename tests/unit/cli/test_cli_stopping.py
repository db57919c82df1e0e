"""Ctrl-C and SIGTERM are kept until the work can be left."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import click
import pytest

from sage_obs.cli.stopping import StopRequest, stopped_by_signals
from sage_obs.errors import ExitCode
from sage_obs.processes import Process, spawn, stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_raised_where_the_work_looks_for_it_and_nowhere_else(number: signal.Signals) -> None:
    """The instructions after the signal are still done; the next check leaves with the exit code asked for."""
    done: list[str] = []
    with pytest.raises(click.exceptions.Exit) as ended, stopped_by_signals(ExitCode.INTERRUPTED) as request:
        _work(request, number, done)
    assert done == ["after the signal"]
    assert ended.value.exit_code == ExitCode.INTERRUPTED


def test_the_handlers_before_are_put_back() -> None:
    """Outside, signals do what they did before."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stopped_by_signals(ExitCode.OK):
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_child_can_be_stopped_whatever_moment_the_signals_come_at(tmp_path: Path) -> None:
    """Signals that arrive while a child is polled leave no lock taken: the child is ended and waited for."""
    child = spawn("sleeper", [sys.executable, "-c", "import time; time.sleep(600)"], log=tmp_path / "log")
    with stopped_by_signals(ExitCode.OK):
        _poll_and_stop(child)
    assert child.exit_code == -signal.SIGTERM


def _work(request: StopRequest, number: signal.Signals, done: list[str]) -> None:
    request.check()
    os.kill(os.getpid(), number)
    done.append("after the signal")
    request.check()
    done.append("after the check")


def _poll_and_stop(child: Process) -> None:
    """Poll a child while this process is sent signals without pause, then stop it."""
    finished = threading.Event()
    thread = threading.Thread(target=_nag, args=(finished,))
    thread.start()
    try:
        for _ in range(20_000):
            assert child.exit_code is None
        stop([child], grace=10)
    finally:
        finished.set()
        thread.join()
        child.popen.kill()


def _nag(finished: threading.Event) -> None:
    while not finished.wait(0.0005):
        os.kill(os.getpid(), signal.SIGINT)
