"""What each condition is tried on: the series that bring its value about, and from when to when it then holds.

A stage has `Part`s, which begin together and are over together. A counter that is over stands still, a gauge that is over goes stale,
and a part that is `steady` goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sage_obs.alerts.timeline import distribution
from sage_obs.conventions import (
    AUDIT_RECORDS,
    BREAKER_STATE,
    BUDGET_USED,
    BUILD_INFO,
    COMPONENT_UP,
    EVENT_LOOP_LAG,
    EXPERIENCE,
    EXPORT_FAILURES,
    GC_PAUSE,
    HEALTH_STATUS,
    INTERNAL_ERRORS,
    LABEL_OVERFLOWS,
    LLM_CALLS,
    LLM_ERRORS,
    LLM_RATE_REMAINING,
    LOGS_DROPPED,
    MEMORY_LIMIT,
    OVERALL,
    QUEUE_CAPACITY,
    QUEUE_DEPTH,
    RELEASE_TIMESTAMP,
    REQUEST_OVERHEAD,
    REQUESTS,
    SECRET_AGE,
    SPANS_DROPPED,
    STEPS,
    STORAGE_DURATION,
    TOOL_CALLS,
    UNKNOWN_PRICE,
    WORKERS,
    WORKERS_BUSY,
    Metric,
)
from sage_obs.slo.names import PROCESS_DESCRIPTOR_LIMIT, PROCESS_DESCRIPTORS, PROCESS_MEMORY, UP
from sage_obs.slo.triggers import OVERHEAD_OBJECTIVE_SECONDS

_HOUR: Final = 3600.0
INSTANCE: Final = "a:9090"


@dataclass(frozen=True, slots=True)
class Part:
    """One series: a gauge that is `amount`, or a counter that rises by it every tick."""

    metric: str
    amount: float
    labels: tuple[tuple[str, str], ...] = ()
    counter: bool = False
    steady: bool = False
    instance: str = INSTANCE


@dataclass(frozen=True, slots=True)
class Course:
    """When a condition holds whose parts begin at tick 0 and are over at tick `gone`: from `since` until before `ends(gone)`.

    `window` is in ticks. At tick t the condition's value is `level` times `shape(t, gone)`.
    """

    since: int
    ends: Callable[[int], int]
    shape: Callable[[int, int], float]
    least: int = 0


def at_once(_: int) -> Course:
    """A gauge's."""
    return Course(0, lambda gone: gone, lambda _t, _gone: 1.0)


def as_share(window: int) -> Course:
    """A ratio's of two counters, or a quantile's: there from the second scrape until nothing rises within the window."""
    return Course(1, lambda gone: gone - 1 + window, lambda _t, _gone: 1.0)


def as_count(window: int) -> Course:
    """A number's of events within the window, where one is too many; the level is what comes in a tick."""

    def shape(t: int, gone: int) -> float:
        return float(min(t, gone - 1, window) if t < gone else window - (t - gone + 1))

    return Course(1, lambda gone: gone - 1 + window, shape, least=window + 1)


def as_rate(window: int) -> Course:
    """A rate's, which grows with the window's filling and falls with its emptying."""
    ratio = 1.2

    def shape(t: int, gone: int) -> float:
        return min(1.0, t / window) if t < gone else 1 - (t - gone + 1) / window

    return Course(math.floor(window / ratio) + 1, lambda gone: gone - 1 + math.ceil(window * (1 - 1 / ratio)), shape, least=window + 1)


Make = Callable[[float, float, float], list[Part]]
"""From the level, the events in a tick and the seconds of a tick to the parts."""


@dataclass(frozen=True, slots=True)
class Stage:
    """How a condition is tried. `window` is in production's seconds, None for that of the rates; `labels` are its alert's beside the job.

    `plenty` is how many events come in a tick where there are enough of them. `levels` replaces 1.2 and 0.8 times the threshold.
    """

    make: Make
    course: Callable[[int], Course]
    labels: Mapping[str, str]
    window: float | None = None
    plenty: float = 100.0
    levels: tuple[float, float] | None = None
    measured: bool = True
    """Whether its series say something by their value, and not by being there."""


def _labels(**labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(labels.items())


def _gauge(metric: Metric | str, amount: float, *, steady: bool = False, instance: str = INSTANCE, **labels: str) -> Part:
    name = metric if isinstance(metric, str) else metric.name
    return Part(name, amount, _labels(**labels), steady=steady, instance=instance)


def _counter(metric: Metric, amount: float, *, suffix: str = "", **labels: str) -> Part:
    return Part(metric.name + suffix, amount, _labels(**labels), counter=True)


def _outcomes(metric: Metric, bad: str, share: float, events: float, *, good: str = "success", **labels: str) -> list[Part]:
    """Events of a counter, a share of them bad."""
    return [
        _counter(metric, events * (1 - share), outcome=good, **labels),
        _counter(metric, events * share, outcome=bad, **labels),
    ]


def observed(
    metric: Metric, value: float, events: float, *, quantile: float = 0.95, labels: Mapping[str, str] = MappingProxyType({})
) -> list[Part]:
    """Observations of a histogram whose quantile is `value`."""
    bounds = distribution(metric.buckets, value, quantile=quantile)
    return [
        _counter(metric, events, suffix="_count", **labels),
        *(_counter(metric, events * share, suffix="_bucket", **labels, le=bound) for bound, share in bounds),
    ]


def _errors(kind: str) -> Make:
    """Errors of calls to a provider."""
    calls = {"provider": "p", "model": "m"}
    return lambda level, events, _: [
        _counter(LLM_CALLS, events * (1 - level), **calls, operation="chat", outcome="success"),
        _counter(LLM_CALLS, events * level, **calls, operation="chat", outcome="server_error"),
        _counter(LLM_ERRORS, events * level, **calls, error_type=kind),
    ]


def _slow(level: float, events: float, _: float) -> list[Part]:
    """Nothing to compare with: the objective is."""
    return [
        _gauge(UP, 1.0, steady=True),
        _gauge(RELEASE_TIMESTAMP, 1.0, steady=True, version="1.0.0"),
        *observed(REQUEST_OVERHEAD, level * OVERHEAD_OBJECTIVE_SECONDS, events, labels={"operation": "message"}),
    ]


def _of_five(level: float) -> int:
    """How many of five instances; the threshold is a third, so that two are over it and one is not."""
    return 2 if level > 0.33 else 1  # noqa: PLR2004 - the guide's third


def _failing(level: float, _: float, __: float) -> list[Part]:
    probes = [
        _gauge(HEALTH_STATUS, float(n >= _of_five(level)), instance=f"i{n}:9090", probe="readiness", check=OVERALL, agent_id="a")
        for n in range(5)
    ]
    return [*probes, *(_gauge(UP, 1.0, instance=f"i{n}:9090") for n in range(5))]


def _down(level: float, _: float, __: float) -> list[Part]:
    targets = [_gauge(UP, float(n >= _of_five(level)), instance=f"i{n}:9090") for n in range(5)]
    return [*targets, _gauge(BUILD_INFO, 1.0, instance="i4:9090", version="1.0.0")]


def _versions(level: float, _: float, __: float) -> list[Part]:
    return [
        part
        for n in range(round(level))
        for part in (
            _gauge(UP, 1.0, instance=f"i{n}:9090"),
            _gauge(RELEASE_TIMESTAMP, 1.0, instance=f"i{n}:9090", version=f"1.{n}.0"),
        )
    ]


def _unseen(level: float, _: float, __: float) -> list[Part]:
    """One instance shows everything, and so does the other where nothing is wrong."""
    other = [] if level else [_gauge(BUILD_INFO, 1.0, instance="b:9090", version="1.0.0")]
    return [_gauge(UP, 1.0), _gauge(BUILD_INFO, 1.0, version="1.0.0"), _gauge(UP, 1.0, instance="b:9090"), *other]


def _steps(level: float, events: float, _: float) -> list[Part]:
    return [
        _counter(STEPS, events, suffix="_count", agent_id="a"),
        _counter(STEPS, events * (1 - level), suffix="_bucket", agent_id="a", le="13"),
        _counter(STEPS, events, suffix="_bucket", agent_id="a", le="+Inf"),
    ]


def _of(part: Metric, whole: Metric, size: float) -> Make:
    """One gauge as a share of another."""
    return lambda level, _, __: [_gauge(part, level * size, agent_id="a"), _gauge(whole, size, agent_id="a")]


def _limits(part: Metric, whole: Metric, size: float) -> Make:
    return lambda level, _, __: [_gauge(part, level * size), _gauge(whole, size)]


def _one(metric: Metric, **labels: str) -> Make:
    """A gauge that is the level."""
    return lambda level, _, __: [Part(metric.name, level, tuple(labels.items()))]


def _some(metric: Metric, /, **labels: str) -> Make:
    """Events that should not be."""
    return lambda level, _, __: [Part(metric.name, level, tuple(labels.items()), counter=True)]


_PROVIDER: Final = {"provider": "p"}
_MODEL: Final = {"provider": "p", "model": "m"}
_AT: Final = {"instance": INSTANCE}
_NONE_OR_ONE: Final = (1.0, 0.0)

STAGES: Final[Mapping[str, Stage]] = {
    "SageErrorRateHigh": Stage(lambda level, events, _: _outcomes(REQUESTS, "server_error", level, events), as_share, {}),
    "SageErrorRateHighSparse": Stage(
        lambda level, events, _: _outcomes(REQUESTS, "server_error", level, events), as_share, {}, window=_HOUR
    ),
    "SageLatencyAboveBaseline": Stage(_slow, as_share, {}),
    "SageHealthCheckFailing": Stage(_failing, at_once, {}, levels=(0.4, 0.2)),
    "SageTargetsDown": Stage(_down, at_once, {}, levels=(0.4, 0.2)),
    "SageCustomerImpact": Stage(
        lambda level, events, _: _outcomes(EXPERIENCE, "frustrated", level, events, good="satisfied"), as_share, {}
    ),
    "SageTelemetryMissing": Stage(_unseen, at_once, {}, levels=_NONE_OR_ONE),
    "SageMixedVersions": Stage(_versions, at_once, {}, levels=(2.0, 1.0), measured=False),
    "SageThroughputNearCapacity": Stage(lambda level, _, tick: [_counter(REQUESTS, level * tick, outcome="success")], as_rate, {}),
    "SageWorkersBusy": Stage(_of(WORKERS_BUSY, WORKERS, 100.0), at_once, {}),
    "SageQueueFilling": Stage(_of(QUEUE_DEPTH, QUEUE_CAPACITY, 1000.0), at_once, {}),
    "SageLoadShed": Stage(lambda level, events, _: _outcomes(REQUESTS, "rejected", level, events), as_share, {}),
    "SageEventLoopLag": Stage(lambda level, events, _: observed(EVENT_LOOP_LAG, level, events, quantile=0.99), as_share, _AT),
    "SageGarbageCollection": Stage(lambda level, _, tick: [_counter(GC_PAUSE, level * tick, suffix="_sum", generation="2")], as_rate, _AT),
    "SageMemoryNearLimit": Stage(_limits(PROCESS_MEMORY, MEMORY_LIMIT, 2.0**29), at_once, _AT),
    "SageDescriptorsNearLimit": Stage(_limits(PROCESS_DESCRIPTORS, PROCESS_DESCRIPTOR_LIMIT, 1000.0), at_once, _AT),
    "SageStorageSlow": Stage(lambda level, events, _: observed(STORAGE_DURATION, level, events, labels={"operation": "get"}), as_share, {}),
    "SageLlmRateLimited": Stage(_errors("rate_limited"), as_share, _PROVIDER),
    "SageLlmFailing": Stage(_errors("unavailable"), as_share, _PROVIDER),
    "SageLlmBreakerOpen": Stage(_one(BREAKER_STATE, target="p"), at_once, {"target": "p"}, levels=(1.0, 0.5)),
    "SageLlmQuotaLow": Stage(_one(LLM_RATE_REMAINING, **_PROVIDER, kind="tokens"), at_once, {**_PROVIDER, "kind": "tokens"}),
    "SageToolFailing": Stage(
        lambda level, events, _: _outcomes(TOOL_CALLS, "server_error", level, events, tool="t"), as_share, {"tool": "t"}
    ),
    "SageRunawaySteps": Stage(_steps, as_share, {}),
    "SageBudgetPace": Stage(_one(BUDGET_USED, tenant="t"), at_once, {"tenant": "t"}),
    "SageBudgetSpent": Stage(_one(BUDGET_USED, tenant="t"), at_once, {"tenant": "t"}),
    "SagePriceUnknown": Stage(_some(UNKNOWN_PRICE, **_MODEL), as_count, _MODEL, window=_HOUR, levels=_NONE_OR_ONE),
    "SageSecretStale": Stage(lambda level, _, __: [_gauge(SECRET_AGE, level * _HOUR, name="k")], at_once, {"name": "k"}),
    "SageAuditRecordsLost": Stage(_some(AUDIT_RECORDS, outcome="lost"), as_count, {}, levels=_NONE_OR_ONE),
    "SageComponentDown": Stage(_one(COMPONENT_UP, component="logs"), at_once, {"component": "logs"}, levels=(0.0, 1.0)),
    "SageSpansLost": Stage(_some(SPANS_DROPPED), as_count, {}, levels=_NONE_OR_ONE),
    "SageLogLinesLost": Stage(_some(LOGS_DROPPED), as_count, {}, levels=_NONE_OR_ONE),
    "SageExportFailing": Stage(_some(EXPORT_FAILURES, signal="traces"), as_count, {"signal": "traces"}, levels=_NONE_OR_ONE),
    "SageTelemetryErrors": Stage(_some(INTERNAL_ERRORS, component="asgi"), as_count, {"component": "asgi"}, levels=_NONE_OR_ONE),
    "SageLabelOverflow": Stage(_some(LABEL_OVERFLOWS, metric="m", label="l"), as_count, {"metric": "m", "label": "l"}, levels=_NONE_OR_ONE),
}
"""By alert; what is not here has its trials in `trials`, as its course is its own."""
