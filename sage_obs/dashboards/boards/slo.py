"""Objectives: what is promised, what is left of the error budget, and how fast it goes."""

from __future__ import annotations

from sage_obs.conventions import BOARD_SLO, REQUEST_OVERHEAD, REQUESTS
from sage_obs.dashboards.boards import shared
from sage_obs.dashboards.expressions import RATE, over, rate, share
from sage_obs.dashboards.frame import framed
from sage_obs.dashboards.grafana import Dashboard
from sage_obs.dashboards.panels import (
    GREEN,
    PER_SECOND,
    PERCENT,
    RED,
    TIMES,
    YELLOW,
    Query,
    Row,
    stat,
    steps,
    timeseries,
)
from sage_obs.slo.burn import BUDGET_DAYS, BURNS, ERROR_BUDGET, FAST_SHARE, Burn
from sage_obs.slo.triggers import (
    AVAILABILITY_OBJECTIVE,
    ERROR_RATE,
    OVERHEAD_OBJECTIVE_SECONDS,
    THROUGHPUT_OBJECTIVE,
)

_DAYS = BUDGET_DAYS
_FAST = steps((FAST_SHARE, GREEN), base=RED)
_FAST_TEXT = (
    f"Share of requests that spent under {OVERHEAD_OBJECTIVE_SECONDS:g} s outside models and tools; the objective is {FAST_SHARE:.0%}."
)


def board() -> Dashboard:
    """The board."""
    return framed(
        BOARD_SLO,
        "Sage objectives",
        "What is promised, what is left of the error budget, and how fast it goes.",
        (_now(), _burn(), _course()),
        since="now-24h",
    )


def burn(window: str) -> str:
    """The burn rate over a window: 1 spends the budget in its period, 0 spends nothing."""
    return f"({share(ERROR_RATE.signal, window=window)}) / {ERROR_BUDGET:g}"


def fast(window: str = RATE) -> str:
    """The share of requests that were fast enough."""
    under = f'le=~"{OVERHEAD_OBJECTIVE_SECONDS:g}"'
    return over(rate(REQUEST_OVERHEAD, under, suffix="_bucket", window=window), rate(REQUEST_OVERHEAD, suffix="_count", window=window))


def _now() -> Row:
    kept = f"1 - {share(ERROR_RATE.signal, window=f'{_DAYS}d')}"
    available = steps((AVAILABILITY_OBJECTIVE, GREEN), base=RED)
    text = f"Share of requests within {_DAYS} days that did not fail in the server; the objective is {AVAILABILITY_OBJECTIVE:.1%}."
    hourly = stat(
        "Burn rate",
        "How fast the error budget went in the past hour: at 1 it lasts its period, at 14.4 two days.",
        Query(burn("1h")),
        unit=TIMES,
        thresholds=steps((1, YELLOW), (BURNS[0].factor, RED)),
    )
    return Row(
        "Now",
        4,
        (
            (4, stat("Availability", text, Query(kept), unit=PERCENT, thresholds=available)),
            (4, shared.budget_left()),
            (4, hourly),
            (4, _exhaustion()),
            (4, stat("Fast enough", _FAST_TEXT, Query(fast("1h")), unit=PERCENT, thresholds=_FAST)),
            (4, _throughput()),
        ),
    )


def _exhaustion() -> object:
    """What is left divided by how fast it goes, in hours, at most the whole period."""
    hours = _DAYS * 24
    left = f"clamp_min(1 - {shared.budget_spent()}, 0)"
    expr = f"clamp_max({hours} * {left} / clamp_min({burn('1h')}, 0.01), {hours})"
    text = f"When the error budget is gone if the past hour goes on; {_DAYS} days where it lasts longer."
    return stat("Time to exhaustion", text, Query(expr), unit="h", thresholds=steps((6, YELLOW), (72, GREEN), base=RED))


def _throughput() -> object:
    limits = steps((0.8, YELLOW), (1, RED))
    text = f"Requests as a share of the {THROUGHPUT_OBJECTIVE:,.0f} a second that the fleet is laid out for."
    return stat("Capacity used", text, Query(f"{rate(REQUESTS)} / {THROUGHPUT_OBJECTIVE:g}"), unit=PERCENT, thresholds=limits)


def _burn() -> Row:
    return Row("Burn rates", 8, tuple((6, _pair(one)) for one in BURNS))


def _pair(one: Burn) -> object:
    text = (
        f"How fast the error budget goes, over {one.long} and, to see that it still does, {one.short}: both over {one.factor:g} are a "
        f"reason to act."
    )
    queries = [Query(burn(one.long), one.long), Query(burn(one.short), one.short)]
    return timeseries(f"Burn over {one.long} and {one.short}", text, queries, unit=TIMES, thresholds=steps((one.factor, RED)))


def _course() -> Row:
    limits = steps((0.8 * THROUGHPUT_OBJECTIVE, YELLOW), (THROUGHPUT_OBJECTIVE, RED))
    bad = Query(share(ERROR_RATE.signal), "failed")
    left = steps((0.0, YELLOW), (0.25, GREEN), base=RED)
    spent = Query(f"1 - {shared.budget_spent()}", "left")
    rates = Query(rate(REQUESTS), "requests")
    return Row(
        "Course",
        8,
        (
            (6, timeseries("Throughput", "Requests finished per second.", [rates], unit=PER_SECOND, thresholds=limits)),
            (6, timeseries("Fast enough over time", _FAST_TEXT, [Query(fast(), "fast enough")], unit=PERCENT, thresholds=_FAST)),
            (6, shared.failed_over_time("Failed requests over time", [bad])),
            (6, timeseries("Error budget", "What is left of the error budget.", [spent], unit=PERCENT, thresholds=left, signed=True)),
        ),
    )
