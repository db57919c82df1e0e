"""The fleet overview: how all agents do, which release does badly, and where the time goes."""

from __future__ import annotations

from typing import Final

from grafanalib.core import Annotations, DashboardLink, Templating, Time

from sage_obs.conventions import (
    BOARD_FLEET,
    BUILD_INFO,
    ERRORS,
    HEALTH_STATUS,
    LLM_CALL_DURATION,
    LLM_CALLS,
    LLM_ERRORS,
    LLM_TOKENS,
    OVERALL,
    RECORD_OVERHEAD_P95,
    RECORD_RELEASE_INFO,
    RELEASE_TIMESTAMP,
    REQUEST_DURATION,
    REQUEST_OVERHEAD,
    REQUESTS,
    REQUESTS_IN_FLIGHT,
)
from sage_obs.dashboards.expressions import JOB, RATE, mean, none_where_no_errors, quantile, rate, series, share
from sage_obs.dashboards.grafana import DATASOURCE, PROMETHEUS, Dashboard, DataSourceVariable, QueryVariable
from sage_obs.dashboards.panels import (
    GREEN,
    PERCENT,
    RED,
    SECONDS,
    TIMES,
    YELLOW,
    Query,
    Row,
    alert_list,
    heatmap,
    laid_out,
    stat,
    states,
    steps,
    table,
    timeseries,
)
from sage_obs.slo.names import ALERTS, PROCESS_CPU, PROCESS_DESCRIPTORS, PROCESS_MEMORY, UP
from sage_obs.slo.promql import recorded
from sage_obs.slo.triggers import (
    CUSTOMER_IMPACT,
    ERROR_OBJECTIVE,
    ERROR_RATE,
    HEALTH,
    OVERHEAD_OBJECTIVE_SECONDS,
    THROUGHPUT_OBJECTIVE,
    TRIGGERS,
    Trigger,
)

TAG: Final = "sage-obs"
_REQUESTS_PER_SECOND: Final = "reqps"
_ERRORS: Final = steps((ERROR_OBJECTIVE, YELLOW), (ERROR_RATE.threshold, RED))
_OVERHEAD: Final = steps((OVERHEAD_OBJECTIVE_SECONDS, RED))


def board() -> Dashboard:
    """The board."""
    rows = (_now(), _triggers(), _traffic(), _latency(), _models(), _instances())
    return Dashboard(
        title="Sage fleet",
        uid=BOARD_FLEET,
        description="How all agents do, which release does badly, and where the time goes.",
        tags=[TAG],
        time=Time("now-1h", "now"),
        refresh="30s",
        links=[DashboardLink(title="Sage boards", tags=[TAG], asDropdown=True, includeVars=True)],
        templating=Templating(list=_variables()),
        annotations=Annotations(list=[_deployments()]),
        panels=laid_out(rows),
    )


def _variables() -> list[DataSourceVariable | QueryVariable]:
    return [
        DataSourceVariable(name=DATASOURCE, label="Prometheus", query="prometheus"),
        QueryVariable(name="job", label="Job", query=f"label_values({BUILD_INFO.name}, job)"),
        QueryVariable(name="instance", label="Instance", query=f"label_values({series(BUILD_INFO, scope=JOB)}, instance)"),
    ]


def _deployments() -> dict[str, object]:
    """A mark where a release started, read from the time it says it did."""
    return {
        "datasource": PROMETHEUS,
        "enable": True,
        "expr": f"max by (job, version) ({series(RELEASE_TIMESTAMP)}) * 1000",
        "iconColor": "blue",
        "name": "Releases",
        "tagKeys": "job",
        "textFormat": "release {{version}} of {{job}} started",
        "titleFormat": "{{version}}",
        "useValueForTime": True,
    }


def _now() -> Row:
    firing = f'sum({ALERTS}{{{JOB}, alertstate="firing"}}) or vector(0)'
    return Row(
        "Now",
        4,
        (
            (4, _throughput()),
            (4, stat("Failed requests", _ERROR_TEXT, Query(share(ERROR_RATE.signal)), unit=PERCENT, thresholds=_ERRORS)),
            (4, stat("p95 without models", _P95_TEXT, Query(quantile(0.95, REQUEST_OVERHEAD)), unit=SECONDS, thresholds=_OVERHEAD)),
            (4, _users_hurt()),
            (4, _targets_up()),
            (4, stat("Firing alerts", "Alerts that fire now.", Query(firing), unit="short", thresholds=steps((1, RED)))),
        ),
    )


_ERROR_TEXT: Final = (
    f"Share of requests that failed in the server. The objective is under {ERROR_OBJECTIVE:.1%}; "
    f"a new release is rolled back over {ERROR_RATE.threshold:.0%}."
)
_P95_TEXT: Final = f"95th percentile of the time spent outside models and tools. The objective is under {OVERHEAD_OBJECTIVE_SECONDS:g} s."


def _throughput() -> object:
    limits = steps((0.8 * THROUGHPUT_OBJECTIVE, YELLOW), (THROUGHPUT_OBJECTIVE, RED))
    text = f"Requests finished per second. The fleet is laid out for {THROUGHPUT_OBJECTIVE:,.0f}; from 80 % on, add capacity."
    return stat("Requests", text, Query(rate(REQUESTS)), unit=_REQUESTS_PER_SECOND, thresholds=limits)


def _users_hurt() -> object:
    text = f"Share of requests whose callers were frustrated. A new release is rolled back when {CUSTOMER_IMPACT.sentence}."
    limits = steps((CUSTOMER_IMPACT.threshold, RED))
    return stat("Users hurt", text, Query(share(CUSTOMER_IMPACT.signal)), unit=PERCENT, thresholds=limits)


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
    by_agent = Query(rate(REQUESTS, by="agent_id"), "{{agent_id}}")
    by_outcome = Query(rate(REQUESTS, by="outcome"), "{{outcome}}")
    by_type = Query(none_where_no_errors(rate(ERRORS, by="error_type"), "error_type", rate(REQUESTS)), "{{error_type}}")
    return Row(
        "Traffic",
        8,
        (
            (6, timeseries("Requests by agent", "Requests finished per second.", [by_agent], unit=_REQUESTS_PER_SECOND, stacked=True)),
            (6, timeseries("Requests by outcome", "How requests ended, per second.", [by_outcome], unit=_REQUESTS_PER_SECOND)),
            (
                6,
                timeseries(
                    "Failed requests over time", _ERROR_TEXT, [Query(share(ERROR_RATE.signal), "failed")], unit=PERCENT, thresholds=_ERRORS
                ),
            ),
            (6, timeseries("Errors by type", "Requests that failed per second, by kind of error.", [by_type], unit=_REQUESTS_PER_SECOND)),
        ),
    )


def _latency() -> Row:
    durations = [Query(quantile(q, REQUEST_DURATION), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)]
    overheads = [Query(quantile(q, REQUEST_OVERHEAD), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)]
    overheads.append(Query(series(RECORD_OVERHEAD_P95, scope=JOB), "p95 as recorded, {{job}}"))
    phases = [Query(mean(REQUEST_OVERHEAD), "own work"), Query(f"{mean(REQUEST_DURATION)} - {mean(REQUEST_OVERHEAD)}", "models and tools")]
    buckets = Query(f"sum by (le) (increase({series(REQUEST_OVERHEAD, suffix='_bucket', window=RATE)}))", "{{le}}")
    return Row(
        "Latency",
        8,
        (
            (6, timeseries("Request duration", "Wall time of requests; streams last until their last byte.", durations, unit=SECONDS)),
            (6, timeseries("Without models and tools", _P95_TEXT, overheads, unit=SECONDS, thresholds=_OVERHEAD)),
            (6, heatmap("Spread without models and tools", "How many requests took how long outside models and tools.", buckets)),
            (6, timeseries("Mean time by phase", "Where the time of a mean request goes.", phases, unit=SECONDS, stacked=True)),
        ),
    )


def _models() -> Row:
    calls = Query(rate(LLM_CALLS, by="model, outcome"), "{{model}} {{outcome}}")
    errors = Query(none_where_no_errors(rate(LLM_ERRORS, by="error_type"), "error_type", rate(LLM_CALLS)), "{{error_type}}")
    tokens = Query(rate(LLM_TOKENS, by="model, type"), "{{model}} {{type}}")
    duration = Query(quantile(0.95, LLM_CALL_DURATION, by="model"), "{{model}}")
    return Row(
        "Language models",
        8,
        (
            (6, timeseries("Model calls", "Calls per second, one per attempt.", [calls], unit=_REQUESTS_PER_SECOND)),
            (6, timeseries("Model errors", "Failed calls per second, by kind of error.", [errors], unit=_REQUESTS_PER_SECOND)),
            (6, timeseries("Model call p95", "95th percentile of a call's wall time.", [duration], unit=SECONDS)),
            (6, timeseries("Tokens", "Tokens billed per second.", [tokens], unit="short")),
        ),
    )


def _instances() -> Row:
    probes = series(HEALTH_STATUS, f'check="{OVERALL}"')
    health = Query(f"min by (instance, probe) ({probes})", "{{instance}} {{probe}}")
    running = Query(series(RECORD_RELEASE_INFO), "")
    in_flight = Query(f"sum by (instance) ({series(REQUESTS_IN_FLIGHT)})", "{{instance}}")
    cpu = Query(rate(PROCESS_CPU, by="instance"), "{{instance}}")
    memory = Query(series(PROCESS_MEMORY), "{{instance}}")
    descriptors = Query(series(PROCESS_DESCRIPTORS), "{{instance}}")
    names = ((0, "unhealthy", RED), (0.5, "degraded", YELLOW), (1, "healthy", GREEN))
    return Row(
        "Instances",
        7,
        (
            (5, states("Health", "What each instance's probes answer.", health, names=names)),
            (4, table("Releases", "Which release each instance runs.", running, columns=("version", "instance", "job"))),
            (4, alert_list("Alerts", "Alerts that fire or are about to.", job=JOB)),
            (3, timeseries("In flight", "Requests being served.", [in_flight], unit="short")),
            (3, timeseries("Processor", "Processor seconds per second.", [cpu], unit="short")),
            (3, timeseries("Memory", "Resident memory.", [memory], unit="bytes")),
            (2, timeseries("Descriptors", "Open file descriptors.", [descriptors], unit="short")),
        ),
    )
