"""An incident: who is hit and where, what it comes from, how it was before, and what to do."""

from __future__ import annotations

from sage_obs.conventions import (
    BOARD_INCIDENT,
    BOARD_LLM,
    BOARD_PROFILING,
    BOARD_ROLLOUT,
    BOARD_RUNTIME,
    EXPERIENCE,
    REQUEST_DURATION,
    REQUEST_OVERHEAD,
    REQUESTS,
    RUNBOOK_RUNS,
    TOOL_CALLS,
    Experience,
    Outcome,
)
from sage_obs.dashboards.boards import shared
from sage_obs.dashboards.boards.llm import FAILING, failures
from sage_obs.dashboards.boards.runtime import saturation
from sage_obs.dashboards.expressions import JOB, increase, or_zero, over, quantile, rate, series, share
from sage_obs.dashboards.frame import framed
from sage_obs.dashboards.grafana import Dashboard
from sage_obs.dashboards.panels import (
    COUNT,
    PER_SECOND,
    PERCENT,
    RED,
    SECONDS,
    YELLOW,
    Column,
    Query,
    Row,
    alert_list,
    logs,
    numbers,
    stat,
    steps,
    text,
    timeseries,
    traces,
)
from sage_obs.slo.promql import recorded
from sage_obs.slo.triggers import CUSTOMER_IMPACT, ERROR_RATE

_AGO = (("", "now"), ("1h", "an hour ago"), ("1d", "a day ago"))
_WHAT_TO_DO = f"""\
1. `sage-obs runbook incident --dry-run` measures the triggers and says what it would do; without `--dry-run` it asks, then does it.
   [The page]({{runbooks}}/incident.md) has every step; [rollback]({{runbooks}}/rollback.md) is the shortest way back.
2. A **release**? [Rollout](/d/{BOARD_ROLLOUT}). A **model**? [Language models](/d/{BOARD_LLM}).
   **Saturated**? [Runtime](/d/{BOARD_RUNTIME}), then [profiling](/d/{BOARD_PROFILING}).
3. `sage-obs runbook note RUN TEXT` keeps what you find for the post-mortem.
""".replace("{runbooks}", "${runbooks}")


def board() -> Dashboard:
    """The board."""
    return framed(
        BOARD_INCIDENT,
        "Sage incident",
        "Who is hit and where, what it comes from, how it was before, and what to do.",
        (_who(), _where(), _what(), _before(), _lines()),
        sources=("loki", "tempo"),
    )


def _who() -> Row:
    hurt = increase(EXPERIENCE, f'outcome="{Experience.FRUSTRATED.value}"', window="$__range")
    count = Query(or_zero(hurt, increase(EXPERIENCE, window="$__range")))
    by_agent = Query(share(CUSTOMER_IMPACT.signal, by="agent_id"), "{{agent_id}}")
    text_count = "Requests within the board's time whose callers were frustrated."
    return Row(
        "Who is hit",
        6,
        (
            (4, shared.users_hurt()),
            (4, stat("Requests hurt", text_count, count, unit=COUNT, thresholds=steps((1, YELLOW), (100, RED)))),
            (8, timeseries("Users hurt by agent", shared.HURT_TEXT, [by_agent], unit=PERCENT, thresholds=shared.HURT)),
            (8, alert_list("Alerts", "Alerts that fire or are about to.", job=JOB)),
        ),
    )


def _where() -> Row:
    labels = "agent_id, operation"
    columns = (
        Column("Requests", rate(REQUESTS, by=labels), PER_SECOND),
        Column("Failed", share(ERROR_RATE.signal, by=labels), PERCENT, shared.FAILED),
        Column("p95 without models", quantile(0.95, REQUEST_OVERHEAD, by=labels), SECONDS, shared.OVERHEAD),
        Column("p95", quantile(0.95, REQUEST_DURATION, by=labels), SECONDS),
    )
    return Row(
        "Where, and what to do",
        8,
        (
            (14, numbers("Where", "Every operation of every agent as it does now.", columns, rows=("agent_id", "operation"))),
            (10, text("What to do", "The runbook, and the boards that tell causes apart.", _WHAT_TO_DO)),
        ),
    )


def _what() -> Row:
    providers = Query(failures(by="provider, model"), "{{provider}} {{model}}")
    total = rate(TOOL_CALLS, by="tool")
    tools = Query(over(or_zero(rate(TOOL_CALLS, f'outcome!="{Outcome.SUCCESS.value}"', by="tool"), total), total), "{{tool}}")
    releases = Query(series(recorded(ERROR_RATE, "value"), scope=JOB), "{{job}} {{version}}")
    return Row(
        "What it comes from",
        7,
        (
            (6, timeseries("A model?", "Share of failed calls by model.", [providers], unit=PERCENT, thresholds=FAILING)),
            (6, timeseries("A tool?", "Share of a tool's calls that did not succeed.", [tools], unit=PERCENT, thresholds=FAILING)),
            (6, timeseries("Saturation?", "Shares of what is limited that are in use.", saturation(), unit=PERCENT, thresholds=_FULL)),
            (6, timeseries("A release?", shared.FAILED_TEXT, [releases], unit=PERCENT, thresholds=steps((ERROR_RATE.threshold, RED)))),
        ),
    )


_FULL = steps((0.8, YELLOW), (1, RED))


def _before() -> Row:
    requests = [Query(rate(REQUESTS, ago=ago), name, dashed=bool(ago)) for ago, name in _AGO]
    failed = [Query(share(ERROR_RATE.signal, ago=ago), name, dashed=bool(ago)) for ago, name in _AGO]
    latency = [Query(quantile(0.95, REQUEST_OVERHEAD, ago=ago), name, dashed=bool(ago)) for ago, name in _AGO]
    finished = f"sum by (runbook, outcome) (increase({series(RUNBOOK_RUNS, scope='', window='1h')}))"
    runs = Query(f'{finished} or on () label_replace(vector(0), "runbook", "none", "", "")', "{{runbook}} {{outcome}}")
    slow = [traces("Slow traces", "duration > 1s")]
    return Row(
        "Now and before",
        7,
        (
            (6, timeseries("Requests", "Requests finished per second.", requests, unit=PER_SECOND)),
            (6, shared.failed_over_time("Failed requests over time", failed)),
            (6, timeseries("p95 without models", shared.P95_TEXT, latency, unit=SECONDS, thresholds=shared.OVERHEAD, links=slow)),
            (6, timeseries("Runbook runs", "Runs of runbooks that the responder finished within an hour.", [runs], unit=COUNT)),
        ),
    )


def _lines() -> Row:
    expr = f'{{job=~"$job"}} | json | level=~"error|critical" or outcome="{Outcome.SERVER_ERROR}"'
    description = (
        "Requests that failed, and errors that services log."
        " A line's trace_id leads to its trace where the data source derives a field from it."
    )
    links = [traces("Traces of failures", "status = error")]
    return Row("Errors as logged", 10, ((24, logs("Error lines", description, expr, links=links)),))
