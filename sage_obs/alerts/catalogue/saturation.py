"""What runs out before callers feel it: places, time of the event loop, memory, files."""

from __future__ import annotations

from typing import Final

from sage_obs.alerts.conditions import Condition
from sage_obs.alerts.expressions import any_of, count, over, quantile, rate, share
from sage_obs.conventions import (
    BOARD_RUNTIME,
    EVENT_LOOP_LAG,
    GC_PAUSE,
    MEMORY_LIMIT,
    QUEUE_CAPACITY,
    QUEUE_DEPTH,
    REQUESTS,
    STORAGE_DURATION,
    WORKERS,
    WORKERS_BUSY,
    Outcome,
    Severity,
)
from sage_obs.slo.names import PROCESS_DESCRIPTOR_LIMIT, PROCESS_DESCRIPTORS, PROCESS_MEMORY
from sage_obs.slo.signals import Selector, Share
from sage_obs.slo.triggers import THROUGHPUT_OBJECTIVE
from sage_obs.slo.windows import Windows, duration

_INSTANCE: Final = "{{ $labels.job }} at {{ $labels.instance }}"
_SHED: Final = Share(bad=any_of(REQUESTS, outcome=(Outcome.REJECTED.value,)), total=Selector(REQUESTS))
_HOURS: Final = 3600.0


def _predicted(windows: Windows) -> str:
    """Memory in twelve hours by the last three, as a share of the limit; only what rises, and has been there for those three."""
    window, ahead = duration(windows.scaled(3 * _HOURS)), windows.scaled(12 * _HOURS)
    memory = PROCESS_MEMORY.name
    return (
        f"predict_linear({memory}[{window}], {ahead:g}) / on (job, instance) ({MEMORY_LIMIT.name} > 0)"
        f" and on (job, instance) deriv({memory}[{window}]) > 0 and on (job, instance) {memory} offset {window}"
    )


CONDITIONS: Final = (
    Condition(
        alert="SageThroughputNearCapacity",
        trigger="throughput",
        severity=Severity.P3,
        title="Throughput",
        sentence="more than four fifths of the throughput that is promised are asked for",
        value=lambda windows: rate(Selector(REQUESTS), windows.rate),
        threshold=0.8 * THROUGHPUT_OBJECTIVE,
        unit="per second",
        hold=600,
        keep=600,
    ),
    Condition(
        alert="SageWorkersBusy",
        trigger="workers",
        severity=Severity.P2,
        title="Worker slots",
        sentence="more than nine tenths of the worker slots are taken",
        value=lambda _: over(WORKERS_BUSY, WORKERS),
        threshold=0.9,
        unit="ratio",
        hold=300,
        keep=300,
        board=BOARD_RUNTIME,
    ),
    Condition(
        alert="SageQueueFilling",
        trigger="queue",
        severity=Severity.P2,
        title="The queue",
        sentence="more than half of the places in the queue are taken",
        value=lambda _: over(QUEUE_DEPTH, QUEUE_CAPACITY),
        threshold=0.5,
        unit="ratio",
        hold=120,
        keep=300,
        board=BOARD_RUNTIME,
    ),
    Condition(
        alert="SageLoadShed",
        trigger="shedding",
        severity=Severity.P2,
        title="Capacity",
        sentence="more than 1 % of requests are turned away",
        value=lambda windows: share(_SHED, windows.rate),
        threshold=0.01,
        unit="ratio",
        samples=lambda windows: count(_SHED.total, windows.rate),
        min_samples=60,
        hold=300,
        keep=300,
        board=BOARD_RUNTIME,
    ),
    Condition(
        alert="SageEventLoopLag",
        trigger="event-loop",
        severity=Severity.P2,
        title="The event loop",
        sentence="one timer in a hundred is later than a tenth of a second",
        value=lambda windows: quantile(0.99, EVENT_LOOP_LAG, windows.rate, by="job, instance"),
        threshold=0.1,
        unit="seconds",
        by="job, instance",
        who=_INSTANCE,
        hold=300,
        keep=300,
        board=BOARD_RUNTIME,
    ),
    Condition(
        alert="SageGarbageCollection",
        trigger="gc",
        severity=Severity.P3,
        title="Garbage collection",
        sentence="more than 5 % of the time is spent collecting garbage",
        value=lambda windows: rate(Selector(GC_PAUSE), windows.rate, by="job, instance", suffix="_sum"),
        threshold=0.05,
        unit="ratio",
        by="job, instance",
        who=_INSTANCE,
        hold=600,
        keep=300,
        board=BOARD_RUNTIME,
    ),
    Condition(
        alert="SageMemoryNearLimit",
        trigger="memory",
        severity=Severity.P2,
        title="Memory",
        sentence="more than nine tenths of the memory limit are used",
        value=lambda _: over(PROCESS_MEMORY, MEMORY_LIMIT, by="job, instance"),
        threshold=0.9,
        unit="ratio",
        by="job, instance",
        who=_INSTANCE,
        hold=300,
        keep=300,
        board=BOARD_RUNTIME,
    ),
    Condition(
        alert="SageMemoryLeak",
        trigger="memory-leak",
        severity=Severity.P3,
        title="Memory",
        sentence="by the last three hours the memory limit is reached within twelve; then that share of it would be used",
        value=_predicted,
        threshold=1.0,
        unit="ratio",
        by="job, instance",
        who=_INSTANCE,
        hold=1800,
        keep=600,
        board=BOARD_RUNTIME,
    ),
    Condition(
        alert="SageDescriptorsNearLimit",
        trigger="descriptors",
        severity=Severity.P2,
        title="Open files",
        sentence="more than four fifths of the files that may be open are",
        value=lambda _: over(PROCESS_DESCRIPTORS, PROCESS_DESCRIPTOR_LIMIT, by="job, instance"),
        threshold=0.8,
        unit="ratio",
        by="job, instance",
        who=_INSTANCE,
        hold=300,
        keep=300,
        board=BOARD_RUNTIME,
    ),
    Condition(
        alert="SageStorageSlow",
        trigger="storage",
        severity=Severity.P2,
        title="The store",
        sentence="one operation on the store in twenty takes longer than a fifth of a second",
        value=lambda windows: quantile(0.95, STORAGE_DURATION, windows.rate),
        threshold=0.2,
        unit="seconds",
        samples=lambda windows: count(Selector(STORAGE_DURATION), windows.rate, suffix="_count"),
        min_samples=60,
        hold=300,
        keep=300,
        board=BOARD_RUNTIME,
    ),
)
"""In the order in which they are looked at."""
