"""What callers feel, whatever the cause: the rollback triggers without a release, and instances that are gone."""

from __future__ import annotations

from typing import Final

from sage_obs.alerts.conditions import Condition
from sage_obs.alerts.expressions import count, share
from sage_obs.conventions import (
    BOARD_ROLLOUT,
    BUILD_INFO,
    RECORD_OVERHEAD_P95,
    RECORD_RELEASE_INFO,
    RELEASE_TIMESTAMP,
    Severity,
)
from sage_obs.slo.names import UP
from sage_obs.slo.promql import reference, select
from sage_obs.slo.signals import QuantileOverReference, Selector, Share, UnhealthyShare
from sage_obs.slo.triggers import CUSTOMER_IMPACT, ERROR_RATE, HEALTH, LATENCY, Trigger
from sage_obs.slo.windows import Windows, duration

_HOUR: Final = 3600.0
_ENOUGH: Final = 60.0
"""Requests in five minutes; fewer say little of a share of a twentieth."""
_FEW: Final = 20.0
_MOST_STARTS: Final = 5
"""In a quarter of an hour. Each worker of an agent that is renewed on purpose may count as one; one that cannot stay up, restarted after
10, 20, 40 … seconds as Kubernetes does it, passes this within ten minutes."""


def _share_of(trigger: Trigger) -> Share:
    if not isinstance(trigger.signal, Share):
        raise TypeError(f"{trigger.slug} is no share")
    return trigger.signal


def _slowness(windows: Windows) -> str:
    signal = LATENCY.signal
    if not isinstance(signal, QuantileOverReference):
        raise TypeError("latency is compared with a reference")
    return f"{RECORD_OVERHEAD_P95} / on (job) ({reference(signal, windows)})"


def _observed(windows: Windows) -> str:
    signal = LATENCY.signal
    if not isinstance(signal, QuantileOverReference):
        raise TypeError("latency is compared with a reference")
    return count(Selector(signal.histogram), windows.rate, suffix="_count")


def _failing(_: Windows) -> str:
    signal = HEALTH.signal
    if not isinstance(signal, UnhealthyShare):
        raise TypeError("health is a share of instances")
    return f"1 - avg by (job) (min by (job, instance) ({select(signal.probe)} >= 0) > bool 0)"


def _ours(windows: Windows) -> str:
    """The jobs that have shown our metrics within the last hour."""
    return f"group by (job) (last_over_time({BUILD_INFO.name}[{duration(windows.scaled(_HOUR))}]))"


CONDITIONS: Final = (
    Condition(
        alert="SageErrorRateHigh",
        trigger=ERROR_RATE.slug,
        severity=Severity.P1,
        title=ERROR_RATE.title,
        sentence="more than 5 % of requests fail in the server",
        value=lambda windows: share(_share_of(ERROR_RATE), windows.rate),
        threshold=ERROR_RATE.threshold,
        unit="ratio",
        samples=lambda windows: count(_share_of(ERROR_RATE).total, windows.rate),
        min_samples=_ENOUGH,
        hold=120,
        keep=300,
    ),
    Condition(
        alert="SageErrorRateHighSparse",
        trigger=ERROR_RATE.slug,
        severity=Severity.P2,
        title="Error rate of the last hour",
        sentence="of the few requests of the last hour more than 5 % failed in the server",
        value=lambda windows: share(_share_of(ERROR_RATE), windows.scaled(_HOUR)),
        threshold=ERROR_RATE.threshold,
        unit="ratio",
        samples=lambda windows: count(_share_of(ERROR_RATE).total, windows.scaled(_HOUR)),
        min_samples=_FEW,
        hold=300,
        keep=300,
    ),
    Condition(
        alert="SageLatencyAboveBaseline",
        trigger=LATENCY.slug,
        severity=Severity.P1,
        title=LATENCY.title,
        sentence="the 95th percentile without language models is over twice the baseline",
        value=_slowness,
        threshold=LATENCY.threshold,
        unit="times",
        samples=_observed,
        min_samples=_ENOUGH,
        hold=300,
        keep=600,
    ),
    Condition(
        alert="SageHealthCheckFailing",
        trigger=HEALTH.slug,
        severity=Severity.P1,
        title=HEALTH.title,
        sentence="a third of the instances or more fail their probes",
        value=_failing,
        threshold=HEALTH.threshold,
        unit="ratio",
        hold=120,
        keep=300,
    ),
    Condition(
        alert="SageTargetsDown",
        trigger="targets",
        severity=Severity.P1,
        title="Instances",
        sentence="a third of the instances or more do not answer a scrape",
        value=lambda windows: f"1 - avg by (job) ({UP}) and on (job) {_ours(windows)}",
        threshold=HEALTH.threshold,
        unit="ratio",
        hold=120,
        keep=300,
    ),
    Condition(
        alert="SageCustomerImpact",
        trigger=CUSTOMER_IMPACT.slug,
        severity=Severity.P1,
        title=CUSTOMER_IMPACT.title,
        sentence="more than 10 % of requests fail or take over four times the objective",
        value=lambda windows: share(_share_of(CUSTOMER_IMPACT), windows.rate),
        threshold=CUSTOMER_IMPACT.threshold,
        unit="ratio",
        samples=lambda windows: count(_share_of(CUSTOMER_IMPACT).total, windows.rate),
        min_samples=_ENOUGH,
        hold=300,
        keep=300,
    ),
    Condition(
        alert="SageJobAbsent",
        trigger="absent",
        severity=Severity.P1,
        title="Every instance",
        sentence="instances that were there within the last hour and are no targets any more, all of the job",
        value=lambda windows: (
            f"count by (job) (last_over_time({BUILD_INFO.name}[{duration(windows.scaled(_HOUR))}])) unless on (job) group by (job) ({UP})"
        ),
        threshold=0,
        hold=300,
        keep=300,
    ),
    Condition(
        alert="SageTelemetryMissing",
        trigger="telemetry",
        severity=Severity.P3,
        title="Telemetry",
        sentence="instances that answer a scrape and do not show the metrics that the others of their job show",
        value=lambda windows: f"count by (job) ({UP} == 1 unless on (job, instance) {BUILD_INFO.name}) and on (job) {_ours(windows)}",
        threshold=0,
        hold=600,
        keep=300,
    ),
    Condition(
        alert="SageCrashLoop",
        trigger="crash-loop",
        severity=Severity.P1,
        title="An instance",
        sentence="it has started more often than five times in a quarter of an hour",
        value=lambda windows: f"max by (job, instance) (changes({RELEASE_TIMESTAMP.name}[{duration(windows.scaled(900))}]))",
        threshold=_MOST_STARTS,
        by="job, instance",
        who="{{ $labels.job }} at {{ $labels.instance }}",
        hold=30,
        keep=300,
    ),
    Condition(
        alert="SageMixedVersions",
        trigger="versions",
        severity=Severity.P3,
        title="A rollout that does not end",
        sentence="versions that serve side by side for an hour",
        value=lambda _: f"count by (job) (count by (job, version) ({RECORD_RELEASE_INFO}))",
        threshold=1,
        hold=3600,
        keep=300,
        board=BOARD_ROLLOUT,
    ),
)
"""In the order in which they are looked at."""
