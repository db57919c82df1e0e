"""Language models: whether they answer, how fast, what they are given and what it costs."""

from __future__ import annotations

from sage_obs.conventions import (
    BOARD_LLM,
    BREAKER_STATE,
    BUDGET_USED,
    LLM_BUDGET,
    LLM_CACHED_TOKENS,
    LLM_CALL_DURATION,
    LLM_CALLS,
    LLM_COST,
    LLM_ERRORS,
    LLM_FALLBACKS,
    LLM_REASONING_TOKENS,
    LLM_RETRIES,
    LLM_TIME_TO_FIRST_TOKEN,
    LLM_TOKENS,
    REQUESTS,
    UNKNOWN_PRICE,
    ErrorType,
    Outcome,
)
from sage_obs.dashboards.expressions import (
    JOB,
    MODEL,
    buckets,
    increase,
    none_where_no_errors,
    or_zero,
    over,
    quantile,
    rate,
    series,
)
from sage_obs.dashboards.frame import choice, framed
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
    Query,
    Row,
    heatmap,
    stat,
    states,
    steps,
    timeseries,
    traces,
)

LIMITED = steps((0.05, RED))
FAILING = steps((0.10, RED))
DEARER = steps((3, RED))
_BY_MODEL = "{{model}}"
_READ = 'kind="read"'


def board() -> Dashboard:
    """The board."""
    return framed(
        BOARD_LLM,
        "Sage language models",
        "Whether language models answer, how fast, what they are given and what it costs.",
        (_now(), _calls(), _latency(), _tokens(), _resilience(), _cost()),
        variables=(choice("model", "Model", series(LLM_CALLS, scope=JOB)),),
    )


def failures(*where: str, by: str = "") -> str:
    """The share of calls that did not succeed."""
    total = rate(LLM_CALLS, *where, by=by)
    return over(or_zero(rate(LLM_CALLS, f'outcome!="{Outcome.SUCCESS.value}"', *where, by=by), total), total)


def _limited(by: str = "") -> str:
    total = rate(LLM_CALLS, MODEL, by=by)
    return over(or_zero(rate(LLM_ERRORS, f'error_type="{ErrorType.RATE_LIMITED.value}"', MODEL, by=by), total), total)


def _speed(by: str = "") -> str:
    return over(rate(LLM_TOKENS, 'type="output"', MODEL, by=by), rate(LLM_CALL_DURATION, MODEL, by=by, suffix="_sum"))


def _now() -> Row:
    failed, limited = Query(failures(MODEL)), Query(_limited())
    first = Query(quantile(0.95, LLM_TIME_TO_FIRST_TOKEN, MODEL))
    hourly = Query(f"3600 * {rate(LLM_COST, MODEL)}")
    used = Query(f"max({series(BUDGET_USED)})")
    spent = "Of the tenant that has spent most of its budget. Over 100 % its calls are refused."
    speed = "Output tokens per second of waiting for a model."
    return Row(
        "Now",
        4,
        (
            (3, stat("Calls", "Calls a second, one per attempt.", Query(rate(LLM_CALLS, MODEL)), unit=PER_SECOND, thresholds=steps())),
            (3, stat("Failed calls", "Share of calls that did not succeed.", failed, unit=PERCENT, thresholds=FAILING)),
            (3, stat("Rate limited", "Share of calls that a provider refused for their rate.", limited, unit=PERCENT, thresholds=LIMITED)),
            (3, _p95()),
            (3, stat("First token p95", "95th percentile of streams.", first, unit=SECONDS, thresholds=steps())),
            (3, stat("Output speed", speed, Query(_speed()), unit=COUNT, thresholds=steps())),
            (3, stat("Cost an hour", "US dollars, at the pace of now.", hourly, unit=DOLLARS, thresholds=steps())),
            (3, stat("Budget used", spent, used, unit=PERCENT, thresholds=steps((0.8, YELLOW), (1, RED)))),
        ),
    )


def _p95() -> object:
    query = Query(quantile(0.95, LLM_CALL_DURATION, MODEL))
    return stat("Call p95", "95th percentile of a call's wall time.", query, unit=SECONDS, thresholds=steps())


def _calls() -> Row:
    by_model = Query(rate(LLM_CALLS, MODEL, by="model, outcome"), "{{model}} {{outcome}}")
    total = rate(LLM_CALLS, MODEL)
    by_type = Query(none_where_no_errors(rate(LLM_ERRORS, MODEL, by="error_type"), "error_type", total), "{{error_type}}")
    failed = Query(failures(MODEL, by="model"), _BY_MODEL)
    limited = Query(_limited("provider, model"), "{{provider}} {{model}}")
    links = [traces("Traces of failed calls", 'span.gen_ai.provider.name != "" && status = error')]
    return Row(
        "Calls",
        8,
        (
            (6, timeseries("Calls by model", "Calls per second, one per attempt.", [by_model], unit=PER_SECOND)),
            (6, timeseries("Errors by type", "Failed calls per second, by kind of error.", [by_type], unit=PER_SECOND, links=links)),
            (6, timeseries("Failed by model", "Share of calls that did not succeed.", [failed], unit=PERCENT, thresholds=FAILING)),
            (6, timeseries("Rate limited by model", "Share of calls that were refused.", [limited], unit=PERCENT, thresholds=LIMITED)),
        ),
    )


def _latency() -> Row:
    duration = Query(quantile(0.95, LLM_CALL_DURATION, MODEL, by="model"), _BY_MODEL)
    first = Query(quantile(0.95, LLM_TIME_TO_FIRST_TOKEN, MODEL, by="model"), _BY_MODEL)
    speed = Query(_speed("model"), _BY_MODEL)
    spread = Query(buckets(LLM_CALL_DURATION, MODEL), "{{le}}")
    slow = [traces("Slow calls", 'span.gen_ai.provider.name != "" && duration > 5s')]
    return Row(
        "Latency",
        8,
        (
            (6, timeseries("Call p95 by model", "95th percentile of a call's wall time.", [duration], unit=SECONDS, links=slow)),
            (6, timeseries("First token p95 by model", "95th percentile of the time to a stream's first token.", [first], unit=SECONDS)),
            (6, timeseries("Output speed by model", "Output tokens per second of waiting.", [speed], unit=COUNT)),
            (6, heatmap("Spread of calls", "How many calls took how long.", spread)),
        ),
    )


def _tokens() -> Row:
    by_type = Query(rate(LLM_TOKENS, MODEL, by="model, type"), "{{model}} {{type}}")
    per_call = Query(f"{rate(LLM_TOKENS, MODEL, by='type')} / on () group_left () ({rate(LLM_CALLS, MODEL)} > 0)", "{{type}}")
    cached = Query(over(rate(LLM_CACHED_TOKENS, _READ, MODEL, by="model"), rate(LLM_TOKENS, 'type="input"', MODEL, by="model")), _BY_MODEL)
    reasoning = over(rate(LLM_REASONING_TOKENS, MODEL, by="model"), rate(LLM_TOKENS, 'type="output"', MODEL, by="model"))
    return Row(
        "Tokens",
        8,
        (
            (6, timeseries("Tokens by type", "Tokens billed per second.", [by_type], unit=COUNT)),
            (6, timeseries("Tokens a call", "Tokens billed by call.", [per_call], unit=COUNT)),
            (6, timeseries("Cached input", "Share of input tokens that providers had in their caches.", [cached], unit=PERCENT)),
            (6, timeseries("Reasoning", "Share of output tokens spent on reasoning.", [Query(reasoning, _BY_MODEL)], unit=PERCENT)),
        ),
    )


def _resilience() -> Row:
    calls = rate(LLM_CALLS)
    retries = Query(none_where_no_errors(rate(LLM_RETRIES, by="reason"), "reason", calls), "{{reason}}")
    fallbacks = Query(none_where_no_errors(rate(LLM_FALLBACKS, by="to_provider, reason"), "reason", calls), "{{to_provider}} {{reason}}")
    breakers = Query(f"max by (target) ({series(BREAKER_STATE)})", "{{target}}")
    names = ((0.0, "closed", GREEN), (0.5, "half open", YELLOW), (1.0, "open", RED))
    unknown = Query(or_zero(rate(UNKNOWN_PRICE), calls), "calls")
    return Row(
        "Resilience",
        8,
        (
            (6, timeseries("Retries", "Calls per second that were made again, by why.", [retries], unit=PER_SECOND)),
            (6, timeseries("Fallbacks", "Calls per second that went on to another provider, by why.", [fallbacks], unit=PER_SECOND)),
            (6, states("Circuit breakers", "Which providers are left alone because too many calls failed.", breakers, names=names)),
            (
                6,
                timeseries(
                    "Without a price",
                    "Calls per second of models in no price table; they add nothing to the cost.",
                    [unknown],
                    unit=PER_SECOND,
                ),
            ),
        ),
    )


def _cost() -> Row:
    hourly = [
        Query(f"3600 * {rate(LLM_COST, MODEL, by='model')}", _BY_MODEL),
        Query(f"3600 * {rate(LLM_COST, MODEL, ago='1d')}", "all, a day ago", dashed=True),
    ]
    usual = Query(over(increase(LLM_COST, MODEL, window="1h"), increase(LLM_COST, MODEL, window="1h", ago="1d")), "this hour")
    thousand = Query(f"1000 * {over(rate(LLM_COST, MODEL), rate(REQUESTS))}", "1,000 requests")
    budget = [
        Query(f"max by (period) ({series(LLM_BUDGET)})", "budget of {{period}}", dashed=True),
        Query(increase(LLM_COST, window="1d"), "spent within a day"),
    ]
    return Row(
        "Cost",
        8,
        (
            (6, timeseries("Cost an hour by model", "US dollars an hour; dashed: a day before.", hourly, unit=DOLLARS)),
            (6, timeseries("Cost against yesterday", _DEARER, [usual], unit=TIMES, thresholds=DEARER)),
            (6, timeseries("Cost of requests", "US dollars for models by 1,000 requests.", [thousand], unit=DOLLARS)),
            (
                6,
                timeseries(
                    "Spend against budget", "US dollars: what was spent within a day, and the agent's budget.", budget, unit=DOLLARS
                ),
            ),
        ),
    )


_DEARER = "The cost of the past hour divided by that of the same hour of the day before."
