"""The guide's four rollback triggers.

One definition each: the alert, the line on the board, the runbook's check, the check made without Prometheus, the promtool
scenarios and the sentence in the pages all come from here.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Final

from sage_obs.conventions import (
    ALERT_ROLLBACK_CUSTOMER_IMPACT,
    ALERT_ROLLBACK_ERROR_RATE,
    ALERT_ROLLBACK_HEALTH,
    ALERT_ROLLBACK_LATENCY,
    EXPERIENCE,
    HEALTH_STATUS,
    OVERALL,
    REQUEST_OVERHEAD,
    REQUESTS,
    Experience,
    Outcome,
    Probe,
)
from sage_obs.slo.signals import QuantileOverReference, Selector, Share, Signal, UnhealthyShare

OVERHEAD_OBJECTIVE_SECONDS: Final = 0.1
"""The guide: p95 under 100 ms, excluding the language model."""
ERROR_OBJECTIVE: Final = 0.001
"""The guide: fewer than 0.1 % of requests fail."""
THROUGHPUT_OBJECTIVE: Final = 10_000.0
"""The guide: 10,000 requests a second."""
AVAILABILITY_OBJECTIVE: Final = 0.999
"""The guide: 99.9 % over 30 days."""


class Verdict(enum.StrEnum):
    """What a check found. Too little data is `unknown`: never healthy, never broken."""

    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Measurement:
    """A signal's value in the unit of its trigger's threshold and how many samples it rests on; None where there was no data."""

    value: float | None
    samples: float | None


@dataclass(frozen=True, slots=True)
class Trigger:
    """A rollback trigger: it fires when `signal` is over `threshold`, on at least `min_samples`, for `hold` seconds.

    `title` names it, `sentence` says it to people; `unit` is `ratio`, or `times` for a multiple of the reference.
    """

    slug: str
    alert: str
    title: str
    sentence: str
    signal: Signal
    threshold: float
    unit: str
    min_samples: float
    hold: float
    keep: float

    def judge(self, measurement: Measurement) -> Verdict:
        """Compare a measurement with the threshold; missing, NaN or scarce data is unknown."""
        value, samples = measurement.value, measurement.samples
        if value is None or samples is None or not math.isfinite(value) or not math.isfinite(samples) or samples < self.min_samples:
            return Verdict.UNKNOWN
        return Verdict.FAIL if value > self.threshold else Verdict.PASS


_NOT_SERVED: Final = (("outcome", (Outcome.CANCELLED.value, Outcome.CLIENT_ERROR.value)),)

ERROR_RATE: Final = Trigger(
    slug="error-rate",
    alert=ALERT_ROLLBACK_ERROR_RATE,
    title="Error rate",
    sentence="more than 5 % of requests failed in the server",
    signal=Share(
        bad=Selector(REQUESTS, include=(("outcome", (Outcome.SERVER_ERROR.value,)),)),
        total=Selector(REQUESTS, exclude=_NOT_SERVED),
    ),
    threshold=0.05,
    unit="ratio",
    min_samples=50,
    hold=120,
    keep=300,
)
LATENCY: Final = Trigger(
    slug="latency",
    alert=ALERT_ROLLBACK_LATENCY,
    title="Latency",
    sentence="the 95th percentile without language models is over twice the baseline",
    signal=QuantileOverReference(REQUEST_OVERHEAD, quantile=0.95, floor=0.02, otherwise=OVERHEAD_OBJECTIVE_SECONDS),
    threshold=2.0,
    unit="times",
    min_samples=50,
    hold=300,
    keep=600,
)
HEALTH: Final = Trigger(
    slug="health",
    alert=ALERT_ROLLBACK_HEALTH,
    title="Health checks",
    sentence="a third of the instances or more fail their probes or are gone",
    signal=UnhealthyShare(
        Selector(HEALTH_STATUS, include=(("probe", (Probe.LIVENESS.value, Probe.READINESS.value)), ("check", (OVERALL,))))
    ),
    threshold=0.33,
    unit="ratio",
    min_samples=1,
    hold=120,
    keep=300,
)
CUSTOMER_IMPACT: Final = Trigger(
    slug="customer-impact",
    alert=ALERT_ROLLBACK_CUSTOMER_IMPACT,
    title="Customer impact",
    sentence="more than 10 % of requests failed or took over four times the objective",
    signal=Share(
        bad=Selector(EXPERIENCE, include=(("outcome", (Experience.FRUSTRATED.value,)),)),
        total=Selector(EXPERIENCE),
    ),
    threshold=0.10,
    unit="ratio",
    min_samples=50,
    hold=120,
    keep=300,
)

TRIGGERS: Final = (ERROR_RATE, LATENCY, HEALTH, CUSTOMER_IMPACT)
"""The four, in the guide's order."""


def trigger(slug: str) -> Trigger:
    """The trigger of this slug. Raises KeyError."""
    return {one.slug: one for one in TRIGGERS}[slug]
