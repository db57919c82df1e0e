"""The processes: queues and workers, the event loop, memory and descriptors, storage, secrets, and whether telemetry loses anything."""

from __future__ import annotations

from sage_obs.conventions import (
    AUDIT_RECORDS,
    BOARD_RUNTIME,
    CERTIFICATE_EXPIRY,
    COMPONENT_UP,
    EVENT_LOOP_LAG,
    EXPORT_FAILURES,
    GC_PAUSE,
    INTERNAL_ERRORS,
    LABEL_OVERFLOWS,
    LOGS_DROPPED,
    MEMORY_LIMIT,
    QUEUE_CAPACITY,
    QUEUE_DEPTH,
    QUEUE_WAIT,
    RELEASE_TIMESTAMP,
    REQUESTS,
    REQUESTS_IN_FLIGHT,
    RUNTIME_TASKS,
    RUNTIME_THREADS,
    SECRET_AGE,
    SPANS_DROPPED,
    STORAGE_CONNECTIONS,
    STORAGE_DURATION,
    STREAMS_ABANDONED,
    WORKERS,
    WORKERS_BUSY,
    Outcome,
)
from sage_obs.dashboards.expressions import RATE, or_zero, over, quantile, rate, series
from sage_obs.dashboards.frame import framed
from sage_obs.dashboards.grafana import Dashboard
from sage_obs.dashboards.panels import (
    BYTES,
    COUNT,
    GREEN,
    PER_SECOND,
    PERCENT,
    RED,
    SECONDS,
    YELLOW,
    Query,
    Row,
    states,
    steps,
    timeseries,
)
from sage_obs.slo.names import (
    PROCESS_CPU,
    PROCESS_DESCRIPTOR_LIMIT,
    PROCESS_DESCRIPTORS,
    PROCESS_MEMORY,
    SCRAPE_DURATION,
    SCRAPE_SAMPLES,
)

_INSTANCE = "{{instance}}"
_FULL = steps((0.8, YELLOW), (1, RED))
_PREDICTED_HOURS = 12
_OBSERVED_HOURS = 3


def board() -> Dashboard:
    """The board."""
    return framed(
        BOARD_RUNTIME,
        "Sage runtime",
        "The processes: queues and workers, the event loop, memory and descriptors, storage, and whether telemetry loses anything.",
        (_capacity(), _loop(), _resources(), _storage(), _telemetry()),
    )


def saturation() -> list[Query]:
    """Shares of what is limited that are in use: worker slots and places in the queue."""
    busy = over(_sum(WORKERS_BUSY), _sum(WORKERS))
    queued = over(_sum(QUEUE_DEPTH), _sum(QUEUE_CAPACITY))
    return [Query(busy, "worker slots"), Query(queued, "places in the queue")]


def _sum(metric: object, by: str = "") -> str:
    return f"sum{f' by ({by})' if by else ''} ({series(metric)})"  # type: ignore[arg-type]


def _capacity() -> Row:
    in_flight = Query(_sum(REQUESTS_IN_FLIGHT, "instance"), _INSTANCE)
    wait = Query(quantile(0.95, QUEUE_WAIT), "p95 of those that waited")
    rejected = rate(REQUESTS, f'outcome="{Outcome.REJECTED.value}"', by="instance")
    refused = Query(or_zero(rejected, rate(REQUESTS, by="instance")), _INSTANCE)
    restarts = Query(f"changes({series(RELEASE_TIMESTAMP, window='1h')})", "{{instance}} {{version}}")
    text = "Worker slots and places in the queue in use, as a share of all. From 80 % on, add capacity."
    return Row(
        "Capacity",
        8,
        (
            (5, timeseries("In flight", "Requests being served.", [in_flight], unit=COUNT)),
            (5, timeseries("Saturation", text, saturation(), unit=PERCENT, thresholds=_FULL)),
            (5, timeseries("Wait in the queue", "How long requests that had to wait did so.", [wait], unit=SECONDS)),
            (5, timeseries("Turned away", "Requests per second refused for lack of room or by a limit.", [refused], unit=PER_SECOND)),
            (
                4,
                timeseries(
                    "Restarts", "How often a process started anew within an hour.", [restarts], unit=COUNT, thresholds=steps((3, RED))
                ),
            ),
        ),
    )


def _loop() -> Row:
    lag = [Query(quantile(q, EVENT_LOOP_LAG, by="instance"), f"p{q * 100:g} {_INSTANCE}") for q in (0.95, 0.99)]
    tasks = Query(_sum(RUNTIME_TASKS, "instance"), _INSTANCE)
    threads = Query(_sum(RUNTIME_THREADS, "instance"), _INSTANCE)
    pauses = Query(rate(GC_PAUSE, by="instance, generation", suffix="_sum"), "{{instance}} generation {{generation}}")
    late = steps((0.05, YELLOW), (0.25, RED))
    text = "How late timers of the event loop are: what blocks it makes every request wait."
    return Row(
        "Python",
        8,
        (
            (6, timeseries("Event-loop lag", text, lag, unit=SECONDS, thresholds=late)),
            (6, timeseries("Tasks", "Tasks that are not done on the loops that serve requests.", [tasks], unit=COUNT)),
            (6, timeseries("Threads", "Python threads that are alive.", [threads], unit=COUNT)),
            (6, timeseries("Garbage collection", "Share of time that the collector takes.", [pauses], unit=PERCENT, thresholds=_GC)),
        ),
    )


_GC = steps((0.05, YELLOW), (0.1, RED))


def _resources() -> Row:
    cpu = Query(rate(PROCESS_CPU, by="instance"), _INSTANCE)
    memory = [
        Query(series(PROCESS_MEMORY), _INSTANCE),
        Query(series(MEMORY_LIMIT), f"limit of {_INSTANCE}", dashed=True),
    ]
    ahead = f"clamp_min({series(PROCESS_MEMORY)} + on (job, instance) {_growth()}, 0)"
    descriptors = Query(over(series(PROCESS_DESCRIPTORS), series(PROCESS_DESCRIPTOR_LIMIT)), _INSTANCE)
    foretold = (
        f"Resident memory in {_PREDICTED_HOURS} hours if the past {_OBSERVED_HOURS} go on, where a leak shows first. "
        "What a younger process has grown counts for less."
    )
    return Row(
        "Resources",
        8,
        (
            (6, timeseries("Processor", "Processor seconds per second.", [cpu], unit=COUNT)),
            (6, timeseries("Memory", "Resident memory, and the control group's limit where there is one.", memory, unit=BYTES)),
            (6, timeseries(f"Memory in {_PREDICTED_HOURS} hours", foretold, [Query(ahead, _INSTANCE)], unit=BYTES)),
            (6, timeseries("Descriptors", "Open files as a share of how many may be.", [descriptors], unit=PERCENT, thresholds=_FULL)),
        ),
    )


def _growth() -> str:
    """Bytes that memory grows by in the hours that are predicted; its slope counts by how much of what is observed it has lived."""
    slope = f"deriv({series(PROCESS_MEMORY, window=f'{_OBSERVED_HOURS}h')})"
    age = f"time() - max by (job, instance) ({series(RELEASE_TIMESTAMP)})"
    return f"({_PREDICTED_HOURS * 3600} * {slope} * on (job, instance) clamp_max(({age}) / {_OBSERVED_HOURS * 3600}, 1))"


def _storage() -> Row:
    operations = Query(quantile(0.95, STORAGE_DURATION, by="operation"), "{{operation}}")
    connections = Query(_sum(STORAGE_CONNECTIONS, "state"), "{{state}}")
    expiry = Query(f"min by (name) ({series(CERTIFICATE_EXPIRY)}) - time()", "{{name}}")
    age = Query(f"max by (name) ({series(SECRET_AGE)})", "{{name}}")
    soon = steps((7 * 86400, YELLOW), (21 * 86400, GREEN), base=RED)
    return Row(
        "State and secrets",
        8,
        (
            (6, timeseries("Storage p95", "95th percentile of operations on the agent's store.", [operations], unit=SECONDS)),
            (6, timeseries("Storage connections", "Connections to the agent's store.", [connections], unit=COUNT)),
            (6, timeseries("Certificates", "How long certificates in use are valid yet.", [expiry], unit=SECONDS, thresholds=soon)),
            (6, timeseries("Secrets", "How long ago a secret was last read anew.", [age], unit=SECONDS)),
        ),
    )


def _telemetry() -> Row:
    names = ((0.0, "failed", RED), (1.0, "works", GREEN))
    components = Query(f"min by (component) ({series(COMPONENT_UP)})", "{{component}}")
    losses = [
        Query(rate(SPANS_DROPPED), "spans"),
        Query(rate(LOGS_DROPPED), "log lines"),
        *(Query(_or_none(rate(metric)), name) for metric, name in _LOSSES),
    ]
    audit = Query(f"{rate(AUDIT_RECORDS, by='outcome')} or on () {_nothing('outcome')}", "{{outcome}}")
    scrapes = Query(series(SCRAPE_DURATION), _INSTANCE)
    samples = Query(series(SCRAPE_SAMPLES), _INSTANCE)
    lost = "What telemetry loses per second, by what: any of these above 0 makes other boards say too little."
    return Row(
        "Telemetry itself",
        8,
        (
            (5, states("Components", "What the instrumentation layer started, and whether it works.", components, names=names)),
            (5, timeseries("Losses", lost, losses, unit=PER_SECOND)),
            (5, timeseries("Audit records", "Records for the audit log per second; none may be lost.", [audit], unit=PER_SECOND)),
            (5, timeseries("Scrape time", "How long Prometheus takes to scrape an instance.", [scrapes], unit=SECONDS, thresholds=_SLOW)),
            (4, timeseries("Samples a scrape", "How many samples an instance shows: its cardinality.", [samples], unit=COUNT)),
        ),
    )


_SLOW = steps((1, YELLOW), (5, RED))
_LOSSES = (
    (EXPORT_FAILURES, "exports"),
    (INTERNAL_ERRORS, "inside the telemetry"),
    (LABEL_OVERFLOWS, "label values past their budget"),
    (STREAMS_ABANDONED, "streams left by their callers"),
)


def _or_none(expr: str) -> str:
    """0 where such a thing has not happened yet."""
    return f"{expr} or on () {_nothing()}"


def _nothing(label: str = "") -> str:
    """0 while a process runs, perhaps named `none`."""
    zero = f"0 * sum (rate({series(PROCESS_CPU, window=RATE)}))"
    return f'label_replace({zero}, "{label}", "none", "", "")' if label else zero
