"""`sage-obs profile top` on a real terminal."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sage_obs.processes import Process, spawn, stop
from tests.support.ports import free_port
from tests.support.services import wait_until
from tests.support.terminal import on_terminal

pytestmark = pytest.mark.system

_FUNCTIONS = "".join(f"def spend_{number}(): sum(range(2000))\n" for number in range(40))
_SERVICE = f"""
import sage_obs
{_FUNCTIONS}
sage_obs.instrument(profiling=True, libraries=[], metrics=False, health=False, strict=True)
print("ready", flush=True)
every = [value for name, value in list(globals().items()) if name.startswith("spend_")]
while True:
    for one in every: one()
"""
_LEAVES = "\x1b[?7h\x1b[?25h\x1b[?1049l"


@contextmanager
def _service(folder: Path, port: int) -> Iterator[Process]:
    (folder / "service.py").write_text(_SERVICE)
    environment = {"SAGE_PROFILING_PORT": str(port)}
    process = spawn("service", [sys.executable, str(folder / "service.py")], log=folder / "log", environment=environment)
    try:
        wait_until(lambda: "ready" in process.tail(20), says=lambda: process.tail(20))
        yield process
    finally:
        stop([process], grace=2)


def _top(port: int, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "sage_obs", "profile", "top", "--url", f"http://127.0.0.1:{port}", "--seconds", "1", *arguments]


def test_each_look_is_one_screen(tmp_path: Path) -> None:
    """As large as the window is then, with the functions that have the most."""
    port = free_port()
    with _service(tmp_path, port), on_terminal(_top(port), environ={}) as terminal:
        terminal.until(lambda: len(terminal.frames) > 2)
        assert [frame.count("\n") + 1 for frame in terminal.frames[:2]] == [24, 24]
        assert all("spend_" in frame and "cpu: " in frame for frame in terminal.frames[:2])
        assert "ticks:" not in terminal.text
        terminal.resize(10, 80)
        terminal.until(lambda: terminal.frames[-2].count("\n") + 1 == 10)


def test_it_goes_on_until_somebody_ends_it(tmp_path: Path) -> None:
    """A service that is away for a while is waited for, with what was seen last; Ctrl+C gives the terminal back."""
    port = free_port()
    with _service(tmp_path, port) as process, on_terminal(_top(port), environ={}) as terminal:
        terminal.until(lambda: "spend_" in terminal.text)
        stop([process], grace=2)
        terminal.until(lambda: "no answer: Cannot fetch" in terminal.frames[-1])
        assert "spend_" in terminal.frames[-1]
        with _service(tmp_path, port):
            terminal.until(lambda: "Ctrl+C ends it" in terminal.frames[-1])
        terminal.process.send_signal(signal.SIGINT)
        while terminal.read():
            pass
        assert terminal.process.wait(10) == 0
        assert terminal.text.endswith(_LEAVES)
        assert "Traceback" not in terminal.text


def test_a_service_that_is_not_there_is_an_error_on_the_usual_screen(tmp_path: Path) -> None:
    """The sentence is what is left on the terminal."""
    with on_terminal(_top(free_port()), environ={"HOME": str(tmp_path)}) as terminal:
        while terminal.read():
            pass
        assert terminal.process.wait(10) == 1
        assert "Cannot fetch a profile" in terminal.text.rpartition(_LEAVES)[2]


def test_memory_is_looked_at_without_tracing(tmp_path: Path) -> None:
    """`--kind heap` is what there is by type at that moment, as what is allocated in between would take tracing."""
    port = free_port()
    with _service(tmp_path, port), on_terminal(_top(port, "--kind", "heap", "--looks", "2"), environ={}) as terminal:
        while terminal.read():
            pass
        assert terminal.process.wait(10) == 0
        assert len(terminal.frames) == 2
        assert "builtins.dict" in terminal.frames[1]
