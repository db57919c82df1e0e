"""One agent, or some: what it is asked, how it does by operation, what that takes, and what it says."""

from __future__ import annotations

from sage_obs.conventions import (
    BOARD_AGENT,
    BUDGET_USED,
    CACHE_REQUESTS,
    ERRORS,
    LLM_COST,
    LLM_TOKENS,
    RATE_LIMIT_DECISIONS,
    REQUEST_DURATION,
    REQUEST_OVERHEAD,
    REQUESTS,
    REQUESTS_IN_FLIGHT,
    STEPS,
    TIME_TO_FIRST_BYTE,
    TOOL_CALLS,
    TOOL_DURATION,
    Outcome,
)
from sage_obs.dashboards.boards import shared
from sage_obs.dashboards.expressions import (
    AGENT,
    JOB,
    buckets,
    mean,
    none_where_no_errors,
    of_agents,
    or_zero,
    over,
    quantile,
    rate,
    series,
    share,
)
from sage_obs.dashboards.frame import choice, framed
from sage_obs.dashboards.grafana import Dashboard
from sage_obs.dashboards.panels import (
    COUNT,
    DOLLARS,
    PER_SECOND,
    PERCENT,
    RED,
    SECONDS,
    YELLOW,
    Query,
    Row,
    heatmap,
    logs,
    stat,
    steps,
    timeseries,
    traces,
)
from sage_obs.slo.triggers import ERROR_RATE

_BY_OPERATION = "{{operation}}"
_FAILED = f'outcome=~"{Outcome.SERVER_ERROR}|{Outcome.REJECTED}"'
"""What lines about requests say of those that did not get what they asked for; their level is that of any other."""


def board() -> Dashboard:
    """The board."""
    return framed(
        BOARD_AGENT,
        "Sage agent",
        "One agent, or some: what it is asked, how it does by operation, what that takes, and what it says.",
        (_now(), _traffic(), _latency(), _work(), _limits(), _lines()),
        sources=("loki", "tempo"),
        variables=(choice("agent_id", "Agent", series(REQUESTS, scope=JOB)),),
    )


def _now() -> Row:
    tokens = over(of_agents(LLM_TOKENS), rate(REQUESTS, AGENT))
    cost = f"1000 * {over(of_agents(LLM_COST), rate(REQUESTS, AGENT))}"
    in_flight = f"sum({series(REQUESTS_IN_FLIGHT, AGENT)})"
    wall = Query(quantile(0.95, REQUEST_DURATION, AGENT))
    return Row(
        "Now",
        4,
        (
            (3, stat("Requests", "Requests finished per second.", Query(rate(REQUESTS, AGENT)), unit=PER_SECOND, thresholds=steps())),
            (3, shared.failed(AGENT)),
            (3, shared.p95(AGENT)),
            (3, stat("p95 with models", "95th percentile of wall time.", wall, unit=SECONDS, thresholds=steps())),
            (3, shared.users_hurt(AGENT)),
            (3, stat("In flight", "Requests being served.", Query(in_flight), unit=COUNT, thresholds=steps())),
            (3, stat("Tokens a request", "Tokens billed, by request finished.", Query(tokens), unit=COUNT, thresholds=steps())),
            (3, stat("Cost of 1,000 requests", "US dollars for models.", Query(cost), unit=DOLLARS, thresholds=steps())),
        ),
    )


def _traffic() -> Row:
    by_operation = Query(rate(REQUESTS, AGENT, by="operation"), _BY_OPERATION)
    failed = Query(share(ERROR_RATE.signal, AGENT, by="operation"), _BY_OPERATION)
    outcomes = Query(rate(REQUESTS, AGENT, by="outcome"), "{{outcome}}")
    by_type = Query(none_where_no_errors(rate(ERRORS, AGENT, by="error_type"), "error_type", rate(REQUESTS, AGENT)), "{{error_type}}")
    return Row(
        "Traffic",
        8,
        (
            (6, timeseries("Requests by operation", "Requests finished per second.", [by_operation], unit=PER_SECOND, stacked=True)),
            (6, shared.failed_over_time("Failed by operation", [failed])),
            (6, timeseries("Requests by outcome", "How requests ended, per second.", [outcomes], unit=PER_SECOND)),
            (6, timeseries("Errors by type", "Requests that failed per second, by kind of error.", [by_type], unit=PER_SECOND)),
        ),
    )


def _latency() -> Row:
    wall = Query(quantile(0.95, REQUEST_DURATION, AGENT, by="operation"), _BY_OPERATION)
    own = Query(quantile(0.95, REQUEST_OVERHEAD, AGENT, by="operation"), _BY_OPERATION)
    first = Query(quantile(0.95, TIME_TO_FIRST_BYTE, AGENT, by="operation"), _BY_OPERATION)
    spread = Query(buckets(REQUEST_DURATION, AGENT), "{{le}}")
    slow = [traces("Slow traces", "duration > 1s")]
    return Row(
        "Latency",
        8,
        (
            (6, timeseries("p95 by operation", "95th percentile of wall time; the diamonds are traces.", [wall], unit=SECONDS, links=slow)),
            (6, timeseries("p95 by operation without models", shared.P95_TEXT, [own], unit=SECONDS, thresholds=shared.OVERHEAD)),
            (6, timeseries("First byte p95", "95th percentile of the time to the first byte of a stream.", [first], unit=SECONDS)),
            (6, heatmap("Spread", "How many requests took how long.", spread)),
        ),
    )


def _work() -> Row:
    count = [Query(mean(STEPS, AGENT), "mean"), Query(quantile(0.95, STEPS, AGENT), "p95")]
    calls = Query(rate(TOOL_CALLS, by="tool, outcome"), "{{tool}} {{outcome}}")
    total = rate(TOOL_CALLS, by="tool")
    failures = Query(over(or_zero(rate(TOOL_CALLS, _not(Outcome.SUCCESS), by="tool"), total), total), "{{tool}}")
    duration = Query(quantile(0.95, TOOL_DURATION, by="tool"), "{{tool}}")
    runaway = steps((8, YELLOW), (21, RED))
    text = "Calls of models and tools in a request that made any. An agent that goes in circles shows here."
    return Row(
        "What a request takes",
        8,
        (
            (6, timeseries("Steps a request", text, count, unit=COUNT, thresholds=runaway)),
            (6, timeseries("Tool calls", "Calls of tools per second, by how they ended.", [calls], unit=PER_SECOND)),
            (6, timeseries("Failed tool calls", "Share of a tool's calls that did not succeed.", [failures], unit=PERCENT)),
            (6, timeseries("Tool p95", "95th percentile of the time inside a call of a tool.", [duration], unit=SECONDS)),
        ),
    )


def _not(outcome: Outcome) -> str:
    return f'outcome!="{outcome.value}"'


def _limits() -> Row:
    decisions = Query(rate(RATE_LIMIT_DECISIONS, by="scope, decision"), "{{scope}} {{decision}}")
    cache = Query(rate(CACHE_REQUESTS, by="cache, result"), "{{cache}} {{result}}")
    budgets = Query(f"topk(10, max by (tenant) ({series(BUDGET_USED)}))", "{{tenant}}")
    limits = steps((0.8, YELLOW), (1, RED))
    text = "Spent and set aside of a tenant's budget for models, as a share of it; the ten nearest to their limit."
    return Row(
        "Limits and tenants",
        8,
        (
            (8, timeseries("Rate limits", "Decisions about callers' rates, per second.", [decisions], unit=PER_SECOND)),
            (8, timeseries("Cached answers", "Questions to caches per second, by what came of them.", [cache], unit=PER_SECOND)),
            (8, timeseries("Top tenants", text, [budgets], unit=PERCENT, thresholds=limits)),
        ),
    )


def _lines() -> Row:
    expr = f'{{job=~"$job"}} | json | agent_id=~"$agent_id" | level=~"warning|error|critical" or {_FAILED}'
    links = [traces("Traces of failures", "status = error")]
    text = (
        "Requests that failed or were turned away, warnings and errors."
        " A line's trace_id leads to its trace where the data source derives a field from it."
    )
    return Row("Log lines", 10, ((24, logs("Log lines", text, expr, links=links)),))
