"""Real `sage-agent` processes on loopback, each ended by the pid it was started with."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_obs.processes import Process, spawn, stop

BODY = {"parts": [{"kind": "text", "text": "hello there"}]}
_LOOPBACK = {
    "SAGE_METRICS_HOST": "127.0.0.1",
    "SAGE_METRICS_PORT": "0",
    "SAGE_SERVER_HOST": "127.0.0.1",
    "SAGE_SERVER_PORT": "0",
}


@dataclass(frozen=True, slots=True)
class RunningAgent:
    """An agent that listens: its process, its log's lines as they are now, its addresses."""

    process: Process
    start: Mapping[str, Any]

    @property
    def url(self) -> str:
        """Where it takes messages."""
        return f"http://127.0.0.1:{self.start['port']}"

    @property
    def profiles_url(self) -> str:
        """Where its profiles are."""
        return f"http://127.0.0.1:{self.start['profiling_port']}/debug/pprof/"

    @property
    def ops_url(self) -> str:
        """Where its metrics are."""
        return f"http://127.0.0.1:{self.start['metrics_port']}"

    def lines(self) -> list[dict[str, Any]]:
        """Its JSON log lines so far."""
        return read_lines(self.process)


def read_lines(process: Process) -> list[dict[str, Any]]:
    """The JSON lines a process has written so far; anything else it wrote is an AssertionError."""
    whole = process.log.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def start_agent(
    folder: Path,
    *,
    name: str = "agent",
    environ: Mapping[str, str] | None = None,
    listener: int | None = None,
    arguments: Sequence[str] = (),
) -> Process:
    """Start an agent in `folder` without waiting for it; its log goes there too."""
    command = [sys.executable, "-m", "sage_agent", "serve", *arguments]
    config = folder / "config.yaml"
    if config.exists():
        command += ["--config", str(config)]
    return spawn(
        name,
        command,
        log=folder / f"{name}.log",
        environment={**_LOOPBACK, "SAGE_STORAGE_PATH": str(folder / "state.db"), **(environ or {})},
        listener=listener,
    )


def wait_for_line(process: Process, message: str, *, seconds: float = 20.0) -> dict[str, Any]:
    """The first log line with this message. Raises AssertionError if the process ends or stays silent."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for line in read_lines(process):
            if line.get("message") == message:
                return line
        if process.exit_code is not None:
            raise AssertionError(f"{process.name} {process.ending()}:\n{process.tail(20)}")
        time.sleep(0.02)
    raise AssertionError(f"{process.name} never said {message!r}:\n{process.tail(20)}")


@contextmanager
def running_agent(
    folder: Path, *, name: str = "agent", environ: Mapping[str, str] | None = None, listener: int | None = None
) -> Iterator[RunningAgent]:
    """An agent that listens when the block begins and is gone when it ends."""
    process = start_agent(folder, name=name, environ=environ, listener=listener)
    try:
        yield RunningAgent(process, wait_for_line(process, "agent listening"))
    finally:
        stop([process], grace=5.0)
