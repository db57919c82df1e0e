"""Instrumented services in processes of their own, under the servers people use, and what a scraper and a reader of logs see of them."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from prometheus_client.parser import text_string_to_metric_families

from sage_obs.conventions import Metric
from sage_obs.processes import Process, spawn, stop
from tests.support.ports import free_port

T = TypeVar("T")
_SURROUNDINGS = {"SAGE_METRICS_HOST": "127.0.0.1", "SAGE_METRICS_PORT": "0", "SAGE_LOG_LEVEL": "debug", "SAGE_AGENT_ID": "a1"}


def wait_until(condition: Callable[[], T], *, seconds: float = 20.0, says: Callable[[], str] = str) -> T:
    """What the condition returns once it is true. Raises AssertionError, with what `says` returns, if it stays false."""
    deadline = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"nothing within {seconds:g} s: {says()}")
        time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Service:
    """A service that listens."""

    process: Process
    url: str
    ops_url: str

    def lines(self, *, logger: str = "") -> list[dict[str, Any]]:
        """Its JSON log lines so far, of one logger if named."""
        whole = self.process.log.read_text().rpartition("\n")[0]
        found = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [line for line in found if logger in {"", line["logger"]}]

    def line(self, message: str) -> dict[str, Any]:
        """The first log line with this message, waited for."""
        return (
            wait_until(
                lambda: next((line for line in self.lines() if line["message"] == message), None), says=lambda: self.process.tail(30)
            )
            or {}
        )

    def value(self, metric: Metric, *, suffix: str = "", **labels: str) -> float:
        """The sum of the samples with these labels as a scraper sees them now; what is not there counts 0."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(httpx.get(f"{self.ops_url}/metrics", trust_env=False).text)
            for sample in family.samples
            if sample.name == metric.name + suffix and all(sample.labels.get(key) == wanted for key, wanted in labels.items())
        )

    def reaches(self, wanted: float, metric: Metric, *, suffix: str = "", **labels: str) -> float:
        """The value once it is `wanted`: a request is counted after its last byte went out, which the caller may have before."""
        return wait_until(
            lambda: self.value(metric, suffix=suffix, **labels) == wanted,
            seconds=20,
            says=lambda: f"{metric.name} {labels} is {self.value(metric, suffix=suffix, **labels)}, not {wanted}",
        )


@contextmanager
def running(folder: Path, source: str, *command: str, environ: dict[str, str] | None = None, python: str = "") -> Iterator[Service]:
    """`python -m COMMAND` with `service.py` in its folder; `{port}` in the command and `PORT` in its environment are where it listens."""
    (folder / "service.py").write_text(source)
    port = free_port()
    arguments: Sequence[str] = [part.format(port=port) for part in command]
    environment = {**_SURROUNDINGS, "PORT": str(port), **(environ or {})}
    process = spawn("service", [python or sys.executable, *arguments], log=folder / "log", environment=environment, cwd=folder)
    try:
        yield _listening(process, port)
    finally:
        stop([process], grace=5)


def _listening(process: Process, port: int) -> Service:
    def connects() -> bool:
        if process.exit_code is not None:
            raise AssertionError(f"{process.name} {process.ending()}:\n{process.tail(30)}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            return False
        return True

    wait_until(connects, says=lambda: process.tail(30))
    found = Service(process, f"http://127.0.0.1:{port}", "")
    return Service(process, found.url, f"http://127.0.0.1:{found.line('telemetry is on')['metrics_port']}")
