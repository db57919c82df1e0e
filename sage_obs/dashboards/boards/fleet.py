"""The fleet overview: how all agents do, which of them does badly, and where the time goes."""

from __future__ import annotations

from typing import Final

from sage_obs.conventions import (
    BOARD_AGENT,
    BOARD_FLEET,
    BUILD_INFO,
    ERRORS,
    HEALTH_STATUS,
    LLM_COST,
    OVERALL,
    RECORD_OVERHEAD_P95,
    RECORD_RELEASE_INFO,
    REQUEST_DURATION,
    REQUEST_OVERHEAD,
    REQUESTS,
)
from sage_obs.dashboards.boards import shared
from sage_obs.dashboards.expressions import (
    JOB,
    TARGET,
    buckets,
    mean,
    none_where_no_errors,
    quantile,
    rate,
    series,
    share,
)
from sage_obs.dashboards.frame import framed
from sage_obs.dashboards.grafana import Dashboard
from sage_obs.dashboards.panels import (
    COUNT,
    DOLLARS,
    GREEN,
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
    heatmap,
    numbers,
    stat,
    steps,
    table,
    timeseries,
    traces,
)
from sage_obs.slo.names import ALERTS, UP
from sage_obs.slo.promql import recorded
from sage_obs.slo.triggers import CUSTOMER_IMPACT, ERROR_RATE, HEALTH, THROUGHPUT_OBJECTIVE, TRIGGERS, Trigger

_TO_AGENT: Final = (
    f"/d/{BOARD_AGENT}?${{prometheus_datasource:queryparam}}&${{job:queryparam}}&var-agent_id=${{__value.text}}&${{__url_time_range}}"
)


def board() -> Dashboard:
    """The board."""
    return framed(
        BOARD_FLEET,
        "Sage fleet",
        "How all agents do, which of them does badly, and where the time goes.",
        (_now(), _triggers(), _traffic(), _latency(), _agents(), _instances()),
    )


def _now() -> Row:
    firing = f'sum({ALERTS}{{{JOB}, alertstate="firing"}}) or vector(0)'
    cost = f"3600 * {rate(LLM_COST)}"
    return Row(
        "Now",
        4,
        (
            (3, _throughput()),
            (3, shared.failed()),
            (3, shared.p95()),
            (3, _targets_up()),
            (3, shared.budget_left()),
            (3, shared.users_hurt()),
            (3, stat("Cost an hour", "US dollars for models, at the pace of now.", Query(cost), unit=DOLLARS, thresholds=steps())),
            (3, stat("Firing alerts", "Alerts that fire now.", Query(firing), unit=COUNT, thresholds=steps((1, RED)))),
        ),
    )


def _throughput() -> object:
    limits = steps((0.8 * THROUGHPUT_OBJECTIVE, YELLOW), (THROUGHPUT_OBJECTIVE, RED))
    text = f"Requests finished per second. The fleet is laid out for {THROUGHPUT_OBJECTIVE:,.0f}; from 80 % on, add capacity."
    return stat("Requests", text, Query(rate(REQUESTS)), unit=PER_SECOND, thresholds=limits)


def _targets_up() -> object:
    limits = steps((round(1 - HEALTH.threshold, 9), YELLOW), (1, GREEN), base=RED)
    text = f"Share of instances that answer Prometheus. {HEALTH.threshold:.0%} missing calls for a rollback of a new release."
    return stat("Targets up", text, Query(f"avg({series(UP)})"), unit=PERCENT, thresholds=limits)


def _triggers() -> Row:
    return Row("Rollback triggers by release", 7, tuple((6, _trigger(trigger)) for trigger in TRIGGERS))


def _trigger(trigger: Trigger) -> object:
    """The recorded value that the alert and the runbook look at, with its threshold."""
    unit = PERCENT if trigger.unit == "ratio" else TIMES
    query = Query(series(recorded(trigger, "value"), scope=JOB), "{{job}} {{version}}")
    text = f"A new release is rolled back when {trigger.sentence} (on at least {trigger.min_samples:g} samples)."
    return timeseries(trigger.title, text, [query], unit=unit, thresholds=steps((trigger.threshold, RED)))


def _traffic() -> Row:
    by_agent = [Query(rate(REQUESTS, by="agent_id"), "{{agent_id}}"), Query(rate(REQUESTS, ago="1d"), "all, a day ago", dashed=True)]
    by_outcome = Query(rate(REQUESTS, by="outcome"), "{{outcome}}")
    by_type = Query(none_where_no_errors(rate(ERRORS, by="error_type"), "error_type", rate(REQUESTS)), "{{error_type}}")
    return Row(
        "Traffic",
        8,
        (
            (
                6,
                timeseries(
                    "Requests by agent",
                    "Requests finished per second; dashed: all of them at this time of the day before.",
                    by_agent,
                    unit=PER_SECOND,
                    stacked=True,
                ),
            ),
            (6, timeseries("Requests by outcome", "How requests ended, per second.", [by_outcome], unit=PER_SECOND)),
            (6, shared.failed_over_time("Failed requests over time", [Query(share(ERROR_RATE.signal), "failed")])),
            (6, timeseries("Errors by type", "Requests that failed per second, by kind of error.", [by_type], unit=PER_SECOND)),
        ),
    )


def _latency() -> Row:
    durations = [Query(quantile(q, REQUEST_DURATION), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)]
    overheads = [Query(quantile(q, REQUEST_OVERHEAD), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)]
    overheads.append(Query(series(RECORD_OVERHEAD_P95, scope=JOB), "p95 as recorded, {{job}}"))
    phases = [Query(mean(REQUEST_OVERHEAD), "own work"), Query(f"{mean(REQUEST_DURATION)} - {mean(REQUEST_OVERHEAD)}", "models and tools")]
    slow = [traces("Slow traces", "duration > 1s")]
    text = "Wall time of requests; streams last until their last byte. The diamonds are traces."
    spread = Query(buckets(REQUEST_OVERHEAD), "{{le}}")
    return Row(
        "Latency",
        8,
        (
            (6, timeseries("Request duration", text, durations, unit=SECONDS, links=slow)),
            (6, timeseries("Without models and tools", shared.P95_TEXT, overheads, unit=SECONDS, thresholds=shared.OVERHEAD, links=slow)),
            (6, heatmap("Spread without models and tools", "How many requests took how long outside models and tools.", spread)),
            (6, timeseries("Mean time by phase", "Where the time of a mean request goes.", phases, unit=SECONDS, stacked=True)),
        ),
    )


def _agents() -> Row:
    columns = (
        Column("Requests", rate(REQUESTS, by="agent_id"), PER_SECOND),
        Column("Failed", share(ERROR_RATE.signal, by="agent_id"), PERCENT, shared.FAILED),
        Column("p95 without models", quantile(0.95, REQUEST_OVERHEAD, by="agent_id"), SECONDS, shared.OVERHEAD),
        Column("p95", quantile(0.95, REQUEST_DURATION, by="agent_id"), SECONDS),
        Column("Users hurt", share(CUSTOMER_IMPACT.signal, by="agent_id"), PERCENT, shared.HURT),
    )
    text = "Every agent as it does now; its name leads to its own board."
    running = Query(f"{series(RECORD_RELEASE_INFO)} * on (job, instance) group_left (revision) {_revision()}", "")
    return Row(
        "Agents",
        8,
        (
            (14, numbers("Agents", text, columns, rows=("agent_id",), link=_TO_AGENT)),
            (10, table("Releases", "Which release each instance runs.", running, columns=("version", "revision", "instance", "job"))),
        ),
    )


def _revision() -> str:
    return f"max by (job, instance, revision) ({series(BUILD_INFO)})"


def _instances() -> Row:
    health = Query(
        f'min by (instance, probe) ({series(HEALTH_STATUS, f"""check="{OVERALL}" """.strip(), scope=TARGET)})', "{{instance}} {{probe}}"
    )
    return Row(
        "Instances",
        8,
        (
            (14, shared.health("Health", "What each instance's probes answer.", health)),
            (10, alert_list("Alerts", "Alerts that fire or are about to.", job=JOB)),
        ),
    )
