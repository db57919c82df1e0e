"""Profiles: where processor time, elapsed time and memory go, beside what asks for looking at them."""

from __future__ import annotations

from sage_obs.conventions import BOARD_PROFILING, EVENT_LOOP_LAG
from sage_obs.dashboards.expressions import RATE, quantile, rate, series
from sage_obs.dashboards.frame import framed
from sage_obs.dashboards.grafana import Dashboard
from sage_obs.dashboards.panels import BYTES, COUNT, RED, SECONDS, YELLOW, Query, Row, flame_graph, steps, text, timeseries
from sage_obs.slo.names import PROCESS_CPU, PROCESS_MEMORY

# The types are those that Alloy and Pyroscope give to profiles scraped from Go's addresses.
_CPU = "process_cpu:cpu:nanoseconds:cpu:nanoseconds"
_WALL = "wall:wall:nanoseconds:wall:nanoseconds"
_HEAP = "memory:inuse_space:bytes:inuse_space:bytes"
_TASKS = "goroutine:goroutine:count:goroutine:count"

_HOW = """\
Flame graphs come from **Pyroscope**, filled by Grafana Alloy from `/debug/pprof/` or by the service itself (`SAGE_PROFILING_SERVER`).

Without it, ask the service: `sage-obs profile cpu --seconds 30 --flamegraph cpu.html --open`, `sage-obs profile heap`,
`sage-obs profile tasks`, or `sage-obs dashboards preview --profiles http://localhost:6060`, which draws this board's flame graphs.
"""


def board() -> Dashboard:
    """The board."""
    return framed(
        BOARD_PROFILING,
        "Sage profiling",
        "Where processor time, elapsed time and memory go, beside what asks for looking at them.",
        (_signs(), _time(), _memory()),
        sources=("pyroscope", "tempo"),
    )


def _signs() -> Row:
    cpu = Query(rate(PROCESS_CPU, by="instance"), "{{instance}}")
    memory = Query(series(PROCESS_MEMORY), "{{instance}}")
    grows = Query(f"deriv({series(PROCESS_MEMORY, window=RATE)})", "{{instance}}")
    lag = Query(quantile(0.99, EVENT_LOOP_LAG, by="instance"), "{{instance}}")
    late = steps((0.05, YELLOW), (0.25, RED))
    return Row(
        "When to look",
        7,
        (
            (
                6,
                timeseries(
                    "Processor", "Processor seconds per second; 1 is a whole core.", [cpu], unit=COUNT, thresholds=steps((0.9, YELLOW))
                ),
            ),
            (6, timeseries("Memory", "Resident memory.", [memory], unit=BYTES)),
            (6, timeseries("Growth of memory", "Bytes per second; above 0 for long is a leak.", [grows], unit="Bps", signed=True)),
            (6, timeseries("Event-loop lag p99", "How late timers are.", [lag], unit=SECONDS, thresholds=late)),
        ),
    )


def _time() -> Row:
    return Row(
        "Time",
        14,
        (
            (12, flame_graph("Processor time", "What the processor is used for, by thread and task.", _CPU)),
            (12, flame_graph("Elapsed time", "Where time passes, waiting included.", _WALL)),
        ),
    )


def _memory() -> Row:
    return Row(
        "Memory and tasks",
        14,
        (
            (10, flame_graph("Memory in use", "What memory is used for, by type or by line.", _HEAP)),
            (10, flame_graph("Tasks and threads", "Where asyncio tasks and threads stand.", _TASKS)),
            (4, text("How to profile", "Where flame graphs come from, and how to have them without Pyroscope.", _HOW)),
        ),
    )
