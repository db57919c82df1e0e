"""Panels and limits that several boards show alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sage_obs.conventions import REQUEST_OVERHEAD
from sage_obs.dashboards.expressions import quantile, share
from sage_obs.dashboards.panels import GREEN, PERCENT, RED, SECONDS, YELLOW, Query, stat, states, steps, timeseries, traces
from sage_obs.slo.burn import BUDGET_DAYS, ERROR_BUDGET
from sage_obs.slo.triggers import CUSTOMER_IMPACT, ERROR_OBJECTIVE, ERROR_RATE, OVERHEAD_OBJECTIVE_SECONDS

FAILED: Final = steps((ERROR_OBJECTIVE, YELLOW), (ERROR_RATE.threshold, RED))
OVERHEAD: Final = steps((OVERHEAD_OBJECTIVE_SECONDS, RED))
HURT: Final = steps((CUSTOMER_IMPACT.threshold, RED))
FAILED_TEXT: Final = (
    f"Share of requests that failed in the server. The objective is under {ERROR_OBJECTIVE:.1%}; "
    f"a new release is rolled back over {ERROR_RATE.threshold:.0%}."
)
P95_TEXT: Final = f"95th percentile of the time spent outside models and tools. The objective is under {OVERHEAD_OBJECTIVE_SECONDS:g} s."
HURT_TEXT: Final = f"Share of requests whose callers were frustrated. A new release is rolled back when {CUSTOMER_IMPACT.sentence}."
HEALTH_NAMES: Final = ((0.0, "unhealthy", RED), (0.5, "degraded", YELLOW), (1.0, "healthy", GREEN))


def failed(*where: str) -> Any:
    """The share of failed requests."""
    return stat("Failed requests", FAILED_TEXT, Query(share(ERROR_RATE.signal, *where)), unit=PERCENT, thresholds=FAILED)


def failed_over_time(title: str, queries: Sequence[Query]) -> Any:
    """The same as lines, with a link to the traces of failures."""
    links = [traces("Traces of failures", "status = error")]
    return timeseries(title, FAILED_TEXT, queries, unit=PERCENT, thresholds=FAILED, links=links)


def p95(*where: str) -> Any:
    """The latency that the objective is about."""
    return stat("p95 without models", P95_TEXT, Query(quantile(0.95, REQUEST_OVERHEAD, *where)), unit=SECONDS, thresholds=OVERHEAD)


def users_hurt(*where: str) -> Any:
    """The share of frustrated callers."""
    return stat("Users hurt", HURT_TEXT, Query(share(CUSTOMER_IMPACT.signal, *where)), unit=PERCENT, thresholds=HURT)


def budget_spent() -> str:
    """The share of the error budget that is spent; 1 is all of it."""
    return f"({share(ERROR_RATE.signal, window=f'{BUDGET_DAYS}d')}) / {ERROR_BUDGET:g}"


def budget_left() -> Any:
    """The error budget that is left."""
    text = f"What is left of the {ERROR_BUDGET:.1%} of requests that may fail within {BUDGET_DAYS} days."
    limits = steps((0.0, YELLOW), (0.25, GREEN), base=RED)
    return stat("Error budget left", text, Query(f"1 - {budget_spent()}"), unit=PERCENT, thresholds=limits)


def health(title: str, description: str, query: Query) -> Any:
    """States of health over time."""
    return states(title, description, query, names=HEALTH_NAMES)
