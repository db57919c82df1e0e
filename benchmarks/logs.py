"""What one correlated JSON line costs the caller: ours and its peers, interleaved in one run.

Every line says the same: a message with an argument, two extras, the ids of the request around it, to a file that is `/dev/null`. Ours is
handed to a thread that writes; its share is in the CPU column. The first row is what the standard library's logger takes to make a record
that goes nowhere, which ours and python-json-logger have in them. Run by `make bench`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

OURS: Final = "sage-obs"
IDS: Final[ContextVar[dict[str, str]]] = ContextVar("ids")
REQUEST: Final = {"request_id": "req-0123456789abcdef", "trace_id": "0123456789abcdef" * 2, "span_id": "0123456789abcdef"}

Line = Callable[[int], None]


def nothing() -> Line:
    """The record and its way to a handler that does nothing."""
    logger = logging.getLogger("bench")
    logger.handlers[:] = [logging.NullHandler()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return lambda number: logger.info("order %d handled", number, extra={"shop": "north", "items": 3})


def ours() -> Line:
    """Redaction included."""
    import sage_obs
    from sage_obs.tracing.context import Request, request_var

    sage_obs.instrument("bench", metrics=False, health=False, traces=False, log_output=os.devnull, strict=True)
    request_var.set(Request(*REQUEST.values(), sampled=False))
    logger = logging.getLogger("bench")
    return lambda number: logger.info("order %d handled", number, extra={"shop": "north", "items": 3})


def ours_access() -> Line:
    """The line of a request."""
    import sage_obs
    from sage_obs.access import served
    from sage_obs.conventions import Outcome
    from sage_obs.tracing.context import Request

    sage_obs.instrument("bench", metrics=False, health=False, traces=False, log_output=os.devnull, strict=True)
    request = Request(*REQUEST.values(), sampled=False)
    return lambda _: served(request, 0.0421, ("GET", "/orders/7", 200, "GET /orders/{number}", Outcome.SUCCESS, None))


def _standard(formatter: logging.Formatter) -> logging.Logger:
    class WithIds(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            record.__dict__.update(IDS.get())
            return True

    handler = logging.FileHandler(os.devnull)
    handler.setFormatter(formatter)
    logger = logging.getLogger("bench")
    logger.addFilter(WithIds())
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


def json_logger() -> Line:
    """Its own encoder."""
    from pythonjsonlogger.json import JsonFormatter

    logger = _standard(JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    return lambda number: logger.info("order %d handled", number, extra={"shop": "north", "items": 3})


def json_logger_orjson() -> Line:
    """With orjson."""
    from pythonjsonlogger.orjson import OrjsonFormatter

    logger = _standard(OrjsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    return lambda number: logger.info("order %d handled", number, extra={"shop": "north", "items": 3})


def loguru_() -> Line:
    """With `serialize`."""
    from loguru import logger

    logger.remove()
    logger.add(os.devnull, serialize=True)
    return lambda number: logger.info("order {} handled", number, shop="north", items=3, **IDS.get())


def structlog_() -> Line:
    """With orjson and context variables."""
    import orjson
    import structlog

    structlog.contextvars.bind_contextvars(**REQUEST)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        logger_factory=structlog.BytesLoggerFactory(Path(os.devnull).open("wb")),  # noqa: SIM115 - for the life of the process
        cache_logger_on_first_use=True,
    )
    logger = structlog.get_logger()
    return lambda number: logger.info("order handled", number=number, shop="north", items=3)


VARIANTS: Final[dict[str, tuple[Callable[[], Line], str]]] = {
    "logging, null handler": (nothing, ""),
    OURS: (ours, "sage-obs"),
    "sage-obs, access line": (ours_access, "sage-obs"),
    "structlog + orjson": (structlog_, "structlog"),
    "python-json-logger + orjson": (json_logger_orjson, "python-json-logger"),
    "python-json-logger": (json_logger, "python-json-logger"),
    "loguru": (loguru_, "loguru"),
}


def once(name: str, lines: int) -> None:
    """One batch of one variant: microseconds a line on the caller's thread, and CPU of the whole process."""
    IDS.set(REQUEST)
    line = VARIANTS[name][0]()
    for number in range(lines // 10):
        line(number)
    cpu, own, began = time.process_time(), time.thread_time(), time.perf_counter()
    for number in range(lines):
        line(number)
    own = time.thread_time() - own
    time.sleep(max(0.0, 0.1 - (time.perf_counter() - began)))
    print(own / lines * 1e6, (time.process_time() - cpu) / lines * 1e6)


def measure(rounds: int, lines: int) -> dict[str, list[tuple[float, float]]]:
    """The variants in turn, each round in a process of its own."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in VARIANTS}
    for number in range(rounds):
        print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
        for name in VARIANTS:
            command = [sys.executable, __file__, "--once", name, "--lines", str(lines)]
            own, cpu = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            found[name].append((float(own), float(cpu)))
    print(file=sys.stderr)
    return found


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--lines", type=int, default=5000)
    parser.add_argument("--once", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.once:
        once(asked.once, asked.lines)
        return
    found = measure(asked.rounds, asked.lines)
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine}; {asked.rounds} rounds of {asked.lines} lines\n")
    print("| logger | µs on the caller's thread | times ours | µs CPU in all |\n|---|---:|---:|---:|")
    base = statistics.median(own for own, _ in found[OURS])
    for name, costs in found.items():
        own, cpu = (statistics.median(column) for column in zip(*costs, strict=True))
        print(f"| {name}{_version(VARIANTS[name][1])} | {own:.1f} | {own / base:.1f} | {cpu:.1f} |")


def _version(distribution: str) -> str:
    return f" {importlib.metadata.version(distribution)}" if distribution else ""


if __name__ == "__main__":
    main()
