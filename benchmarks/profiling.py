"""What profiling costs a busy event loop: ours armed and with windows open, py-spy record, pyroscope-io, and nothing, by turns.

    .venv/bin/python benchmarks/profiling.py [--rounds N]

Each of them is a process of its own that does the same work when it is told to, one after the other, in another order each round. Before
and after each turn the process nothing looks at has one, and what is printed is the processor's time against the mean of the two, that of
py-spy's own process included, and the time that passed likewise: medians of the rounds. A second process nothing looks at shows how far
such a ratio is from 1 on this machine by itself; what is less than that is not measured. The fastest tenth of the turns are compared, too,
as whatever else a machine does makes turns longer and never shorter. What of the processor's time passes inside of our looks is measured
in the process itself, where the machine's noise is the same for both.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

_WORK = """
import asyncio, json, os, sys, time
import uvloop
import sage_obs
from sage_obs import loops
from sage_obs.profiling.sampler import Sampler

LOOKS = [0]
LOOK = Sampler.tick

def timed(*arguments, **more):
    began = time.thread_time_ns()
    LOOK(*arguments, **more)
    LOOKS[0] += time.thread_time_ns() - began

Sampler.tick = timed
BODY = json.dumps({"parts": [{"kind": "text", "text": "hello " * 20}]})

async def request(number):
    message = json.loads(BODY)
    await asyncio.sleep(0)
    return len(json.dumps({"id": number, **message})) + sum(range(200))

async def work(amount):
    loops.seen_here()
    for first in range(0, amount, 10):
        await asyncio.gather(*(request(number) for number in range(first, first + 10)))

async def main():
    handle = start(sys.argv[1])
    await work(1000)
    print(0 if handle is None else handle.profiling_port, flush=True)
    for line in sys.stdin:
        began, passed, LOOKS[0] = time.process_time(), time.perf_counter(), 0
        await work(int(line))
        print(time.process_time() - began, time.perf_counter() - passed, LOOKS[0] / 1e9, flush=True)

def start(kind):
    if kind == "pyroscope-io":
        import pyroscope
        pyroscope.configure(application_name="bench", server_address=os.environ["SINK"])
    if not kind.startswith("ours"):
        return None
    return sage_obs.instrument(profiling=True, profiling_port=0, libraries=[], logs=False, metrics=False, health=False, strict=True)

uvloop.run(main())
"""
BASE = "nothing"
KINDS = ("nothing, once more", "ours, armed", "ours, cpu window", "ours, wall window", "py-spy record", "pyroscope-io")
_WINDOWS = {"ours, cpu window": "profile?seconds=120", "ours, wall window": "profile?seconds=120&mode=wall"}


class _Sink(BaseHTTPRequestHandler):
    """Takes what is pushed and forgets it."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing is worth a line."""


@contextmanager
def _sink() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class _Worker:
    """A process that works when it is told to."""

    def __init__(self, kind: str, sink: str) -> None:
        self.kind = kind
        environ = {**os.environ, "SINK": sink}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WORK, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
        )
        self.port = int(self._line())
        self.spy = _spy(self.process.pid) if kind == "py-spy record" else None

    def _line(self) -> str:
        if self.process.stdout is None or not (line := self.process.stdout.readline()):
            raise SystemExit(f"{self.kind} ended")
        return line

    def work(self, amount: int) -> tuple[float, float, float]:
        """Seconds of the processor for so many requests, those of who looks included, seconds passed, and seconds inside of our looks."""
        before = self._spied()
        with self._window():
            if self.process.stdin is None:
                raise SystemExit(f"{self.kind} ended")
            self.process.stdin.write(f"{amount}\n")
            self.process.stdin.flush()
            used, passed, looks = map(float, self._line().split())
            return used + self._spied() - before, passed, looks

    def _spied(self) -> float:
        """Seconds of the processor that py-spy has used so far."""
        if self.spy is None:
            return 0.0
        if self.spy.poll() is not None:
            raise SystemExit("py-spy ended")
        user, system = Path(f"/proc/{self.spy.pid}/stat").read_text().rpartition(") ")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    @contextmanager
    def _window(self) -> Iterator[None]:
        """A window of ours that is open for the length of the block; who asked for it leaves then."""
        if self.kind not in _WINDOWS:
            yield
            return
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.sendall(f"GET /debug/pprof/{_WINDOWS[self.kind]} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        try:
            yield
        finally:
            connection.close()

    def end(self) -> None:
        """Stop it, and who looks at it."""
        for one in (self.spy, self.process):
            if one is not None:
                one.kill()
                one.wait()


def _spy(pid: int) -> subprocess.Popen[bytes]:
    program = str(Path(sys.executable).with_name("py-spy"))
    command = [program, "record", "--pid", str(pid), "--duration", "3600", "--rate", "100", "--format", "raw", "--output", os.devnull]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class _Turn(NamedTuple):
    """Seconds of the processor, what they and the time that passed are of the base's turns, and what of them is in our looks."""

    used: float
    processor: float
    passed: float
    looks: float


def _measure(base: _Worker, workers: list[_Worker], rounds: int, amount: int) -> dict[str, list[_Turn]]:
    """The turns of each kind, round by round; the base's own are compared with nothing."""
    found: dict[str, list[_Turn]] = {worker.kind: [] for worker in (base, *workers)}
    order = random.Random(1)  # noqa: S311 - the same order each time
    before = base.work(amount)
    for _ in range(rounds):
        order.shuffle(workers)
        for worker in workers:
            used, passed, looks = worker.work(amount)
            after = base.work(amount)
            found[base.kind].append(_Turn(after[0], 1.0, 1.0, 0.0))
            found[worker.kind].append(_Turn(used, 2 * used / (before[0] + after[0]), 2 * passed / (before[1] + after[1]), looks / used))
            before = after
    return found


def _fastest(turns: list[_Turn]) -> float:
    """Seconds of the processor that a tenth of the turns have stayed below: what others do to a machine makes turns longer only."""
    return statistics.quantiles([one.used for one in turns], n=10)[0]


def main(arguments: list[str] | None = None, show: Callable[[str], object] = print) -> dict[str, float]:
    """Run it and print a table; returns the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--requests", type=int, default=15_000)
    given = parser.parse_args(arguments)
    with _sink() as sink, ExitStack() as stack:
        workers = []
        for kind in (BASE, *KINDS):
            workers.append(_Worker(kind, sink))
            stack.callback(workers[-1].end)
        found = _measure(workers[0], workers[1:], given.rounds, given.requests)
    show("| | processor | quartiles | fastest tenth | time passed | in our looks |")
    show("|---|---:|---:|---:|---:|---:|")
    medians = {}
    for kind in KINDS:
        low, medians[kind], high = statistics.quantiles([one.processor for one in found[kind]], n=4)
        passed = statistics.median(one.passed for one in found[kind])
        looks = statistics.median(one.looks for one in found[kind])
        fastest = _fastest(found[kind]) / _fastest(found[BASE])
        show(f"| {kind} | {medians[kind]:.3f} | {low:.3f} - {high:.3f} | {fastest:.3f} | {passed:.3f} | {looks:.1%} |")
    return medians


if __name__ == "__main__":
    main()
