"""A rollout: which releases run, how each does against the one before, and what would roll it back."""

from __future__ import annotations

from sage_obs.conventions import (
    BOARD_ROLLOUT,
    HEALTH_STATUS,
    LLM_COST,
    LLM_TOKENS,
    OVERALL,
    RECORD_RELEASE_INFO,
    RECORD_RELEASE_NEW,
    REQUEST_OVERHEAD,
    REQUESTS,
)
from sage_obs.dashboards.boards import shared
from sage_obs.dashboards.expressions import JOB, by_version, none_where_no_errors, of_version, or_zero, over, series
from sage_obs.dashboards.frame import choice, framed
from sage_obs.dashboards.grafana import Dashboard
from sage_obs.dashboards.panels import (
    BYTES,
    COUNT,
    DOLLARS,
    PER_SECOND,
    PERCENT,
    RED,
    SECONDS,
    TIMES,
    YELLOW,
    Column,
    Query,
    Row,
    alert_list,
    numbers,
    stat,
    states,
    steps,
    timeseries,
)
from sage_obs.slo.names import ALERTS, PROCESS_MEMORY
from sage_obs.slo.promql import recorded
from sage_obs.slo.triggers import CUSTOMER_IMPACT, ERROR_RATE, HEALTH, LATENCY, TRIGGERS, Trigger

_VERSION = 'version=~"$version"'
_LEGEND = "{{version}}"


def board() -> Dashboard:
    """The board."""
    return framed(
        BOARD_ROLLOUT,
        "Sage rollout",
        "Which releases run, how each does against the one before, and what would roll it back.",
        (_now(), _judged(), _traffic(), _quality(), _cost()),
        variables=(choice("version", "Release", series(RECORD_RELEASE_INFO, scope=JOB)),),
    )


def value(trigger: Trigger) -> str:
    """A trigger's recorded value by release."""
    return series(recorded(trigger, "value"), _VERSION, scope=JOB)


def new() -> str:
    """The releases that were not here before, in jobs that were."""
    return series(RECORD_RELEASE_NEW, _VERSION, scope=JOB)


def _now() -> Row:
    count = f"count({new()}) or vector(0)"
    on_new = f"sum({by_version(REQUESTS, labels='job, version')} and on (job, version) {new()})"
    total = f"sum({by_version(REQUESTS, labels='job, version')})"
    text = "Versions that were not here before, in jobs that were."
    part = "Share of requests that new releases serve; 0 where none is new."
    return Row(
        "Now",
        4,
        (
            (4, stat("New releases", text, Query(count), unit=COUNT, thresholds=steps((1, YELLOW)))),
            (4, stat("Traffic on new releases", part, Query(over(or_zero(on_new, total), total)), unit=PERCENT, thresholds=steps())),
            *((4, _worst(trigger)) for trigger in TRIGGERS),
        ),
    )


_WORST = {ERROR_RATE: "Worst error rate", LATENCY: "Worst latency", HEALTH: "Worst health", CUSTOMER_IMPACT: "Worst customer impact"}


def _worst(trigger: Trigger) -> object:
    unit = PERCENT if trigger.unit == "ratio" else TIMES
    text = f"Of the release that does worst. A new one is rolled back when {trigger.sentence}."
    return stat(_WORST[trigger], text, Query(f"max({value(trigger)})"), unit=unit, thresholds=steps((trigger.threshold, RED)))


def _judged() -> Row:
    alerts = f'max by (alertname, version) ({ALERTS}{{{JOB}, action="rollback"}})'
    firing = Query(none_where_no_errors(alerts, "alertname", f"max ({_running()})"), "{{alertname}} {{version}}")
    names = ((0.0, "quiet", "green"), (1.0, "pending or firing", RED))
    columns = (
        Column("Instances", f"count by (version) ({_running()})", COUNT),
        *(
            Column(trigger.title, f"max by (version) ({value(trigger)})", PERCENT if trigger.unit == "ratio" else TIMES, _limit(trigger))
            for trigger in TRIGGERS
        ),
        Column("Samples", f"max by (version) ({series(recorded(ERROR_RATE, 'samples'), _VERSION, scope=JOB)})", COUNT),
    )
    return Row(
        "How releases are judged",
        8,
        (
            (12, numbers("Releases", "What the rollback triggers see of each release.", columns, rows=("version",))),
            (6, states("Rollback alerts", "Alerts that call for a rollback: pending while they hold, then firing.", firing, names=names)),
            (6, alert_list("Alerts", "Alerts that fire or are about to.", job=JOB)),
        ),
    )


def _limit(trigger: Trigger) -> list[dict[str, object]]:
    return steps((trigger.threshold, RED))


def _running() -> str:
    return series(RECORD_RELEASE_INFO, _VERSION)


def _traffic() -> Row:
    instances = Query(f"count by (version) ({_running()})", _LEGEND)
    requests = Query(by_version(REQUESTS), _LEGEND)
    errors = Query(value(ERROR_RATE), _LEGEND)
    hurt = Query(value(CUSTOMER_IMPACT), _LEGEND)
    return Row(
        "Traffic by release",
        8,
        (
            (6, timeseries("Instances", "Instances that run each release.", [instances], unit=COUNT, stacked=True)),
            (6, timeseries("Requests", "Requests finished per second.", [requests], unit=PER_SECOND, stacked=True)),
            (6, timeseries("Error rate", shared.FAILED_TEXT, [errors], unit=PERCENT, thresholds=_limit(ERROR_RATE))),
            (6, timeseries("Users hurt", shared.HURT_TEXT, [hurt], unit=PERCENT, thresholds=_limit(CUSTOMER_IMPACT))),
        ),
    )


def _quality() -> Row:
    buckets = by_version(REQUEST_OVERHEAD, suffix="_bucket", labels="version, le")
    p95 = Query(f"histogram_quantile(0.95, {buckets}) >= 0", _LEGEND)
    times = Query(value(LATENCY), _LEGEND)
    check = f'check="{OVERALL}"'
    health = Query(f"min by (version, probe) ({series(HEALTH_STATUS, check)} {of_version()})", "{{version}} {{probe}}")
    memory = Query(f"avg by (version) ({series(PROCESS_MEMORY)} {of_version()})", _LEGEND)
    text = f"95th percentile without models divided by the baseline. A new release is rolled back when {LATENCY.sentence}."
    return Row(
        "Quality by release",
        8,
        (
            (6, timeseries("p95 without models", shared.P95_TEXT, [p95], unit=SECONDS, thresholds=shared.OVERHEAD)),
            (6, timeseries("p95 over baseline", text, [times], unit=TIMES, thresholds=_limit(LATENCY))),
            (6, shared.health("Health", "The worst that probes of each release's instances answer.", health)),
            (6, timeseries("Memory an instance", "Mean resident memory.", [memory], unit=BYTES)),
        ),
    )


def _cost() -> Row:
    requests = by_version(REQUESTS)
    tokens = Query(over(by_version(LLM_TOKENS), requests), _LEGEND)
    cost = Query(f"1000 * {over(by_version(LLM_COST), requests)}", _LEGEND)
    return Row(
        "Cost by release",
        8,
        (
            (8, timeseries("Tokens a request", "Tokens billed, by request finished.", [tokens], unit=COUNT)),
            (8, timeseries("Cost of 1,000 requests", "US dollars for models.", [cost], unit=DOLLARS)),
            (
                8,
                timeseries(
                    "Samples",
                    _SAMPLES,
                    [Query(_samples(), _LEGEND)],
                    unit=COUNT,
                    thresholds=steps((ERROR_RATE.min_samples, "green"), base=YELLOW),
                ),
            ),
        ),
    )


_SAMPLES = f"Requests that a release is judged by; under {ERROR_RATE.min_samples:g} it is not judged at all."


def _samples() -> str:
    return series(recorded(ERROR_RATE, "samples"), _VERSION, scope=JOB)
