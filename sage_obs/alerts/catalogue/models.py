"""Language models, tools and what they cost."""

from __future__ import annotations

from typing import Final

from sage_obs.alerts.conditions import Condition
from sage_obs.alerts.expressions import any_of, count, quantile, rate, share
from sage_obs.alerts.model import RecordingRule
from sage_obs.conventions import (
    BOARD_AGENT,
    BOARD_LLM,
    BREAKER_STATE,
    BUDGET_USED,
    LLM_CALL_DURATION,
    LLM_CALLS,
    LLM_COST,
    LLM_ERRORS,
    LLM_RATE_REMAINING,
    RECORD_LLM_COST_HOUR,
    RECORD_LLM_P95,
    STEPS,
    TOOL_CALLS,
    UNKNOWN_PRICE,
    ErrorType,
    Outcome,
    Severity,
)
from sage_obs.slo.signals import Selector, Share
from sage_obs.slo.windows import Windows, duration

_HOUR: Final = 3600.0
_PROVIDER: Final = "job, provider"
_MODEL: Final = "job, provider, model"
_OF_PROVIDER: Final = "{{ $labels.provider }} for {{ $labels.job }}"
_OF_MODEL: Final = "{{ $labels.model }} of {{ $labels.provider }} for {{ $labels.job }}"
_LIMITED: Final = Share(bad=any_of(LLM_ERRORS, error_type=(ErrorType.RATE_LIMITED.value,)), total=Selector(LLM_CALLS))
_BROKEN: Final = (ErrorType.AUTH, ErrorType.SERVER_ERROR, ErrorType.TIMEOUT, ErrorType.UNAVAILABLE)
_FAILED: Final = Share(bad=any_of(LLM_ERRORS, error_type=tuple(kind.value for kind in _BROKEN)), total=Selector(LLM_CALLS))
_TOOLS: Final = Share(bad=any_of(TOOL_CALLS, outcome=(Outcome.SERVER_ERROR.value,)), total=Selector(TOOL_CALLS))
_MANY_STEPS: Final = 13
"""A bucket bound of `sage_agent_steps`; a request that takes more has lost its way."""
_OLD_ENOUGH: Final = 6 * _HOUR
"""A younger service has no usual hour."""
_LEAST_USD: Final = 1.0
"""An hour that costs less is not worth waking anybody."""


def _p95(windows: Windows) -> str:
    return quantile(0.95, LLM_CALL_DURATION, windows.rate, by=_MODEL)


def _cost_of_an_hour(windows: Windows) -> str:
    return f"{rate(Selector(LLM_COST), windows.scaled(_HOUR))} * {_HOUR:g}"


def _usual(record: str, windows: Windows, *, days: float) -> str:
    """The median of a recorded series over days that end an hour ago."""
    return f"quantile_over_time(0.5, {record}[{duration(windows.scaled(days * 24 * _HOUR))}] offset {duration(windows.scaled(_HOUR))})"


def _long_runs(windows: Windows) -> str:
    """The share of requests with more steps than that; a bound may be written `13` or `13.0`."""
    steps = Selector(STEPS)
    whole = rate(steps, windows.rate, suffix="_count")
    few = f'sum by (job) (rate({STEPS.name}_bucket{{le=~"{_MANY_STEPS}([.]0)?"}}[{duration(windows.rate)}]))'
    return f"1 - {few} / ({whole} > 0)"


def records(windows: Windows) -> tuple[RecordingRule, ...]:
    """What is compared with its own past."""
    return (RecordingRule(RECORD_LLM_P95, _p95(windows)), RecordingRule(RECORD_LLM_COST_HOUR, _cost_of_an_hour(windows)))


CONDITIONS: Final = (
    Condition(
        alert="SageLlmRateLimited",
        trigger="llm-rate-limited",
        severity=Severity.P2,
        title="Rate limit",
        sentence="more than 5 % of the calls are answered 429",
        value=lambda windows: share(_LIMITED, windows.rate, by=_PROVIDER),
        threshold=0.05,
        unit="ratio",
        by=_PROVIDER,
        who=_OF_PROVIDER,
        samples=lambda windows: count(_LIMITED.total, windows.rate, by=_PROVIDER),
        min_samples=60,
        hold=300,
        keep=300,
        board=BOARD_LLM,
    ),
    Condition(
        alert="SageLlmFailing",
        trigger="llm-failing",
        severity=Severity.P2,
        title="Calls",
        sentence="more than 10 % of the calls fail at the provider",
        value=lambda windows: share(_FAILED, windows.rate, by=_PROVIDER),
        threshold=0.1,
        unit="ratio",
        by=_PROVIDER,
        who=_OF_PROVIDER,
        samples=lambda windows: count(_FAILED.total, windows.rate, by=_PROVIDER),
        min_samples=60,
        hold=300,
        keep=300,
        board=BOARD_LLM,
    ),
    Condition(
        alert="SageLlmSlow",
        trigger="llm-slow",
        severity=Severity.P2,
        title="Speed",
        sentence="the 95th percentile of the calls is over twice what it usually is",
        value=lambda windows: f"{RECORD_LLM_P95} / on ({_MODEL}) ({_usual(RECORD_LLM_P95, windows, days=1)} > 0)",
        threshold=2.0,
        unit="times",
        by=_MODEL,
        who=_OF_MODEL,
        samples=lambda windows: count(Selector(LLM_CALL_DURATION), windows.rate, by=_MODEL, suffix="_count"),
        min_samples=60,
        hold=600,
        keep=300,
        board=BOARD_LLM,
    ),
    Condition(
        alert="SageLlmBreakerOpen",
        trigger="llm-breaker",
        severity=Severity.P2,
        title="A provider",
        sentence="too many calls to {{ $labels.target }} failed, and none is made",
        value=lambda _: f"max by (job, target) ({BREAKER_STATE.name})",
        threshold=0.75,
        by="job, target",
        hold=60,
        keep=300,
        board=BOARD_LLM,
    ),
    Condition(
        alert="SageLlmQuotaLow",
        trigger="llm-quota",
        severity=Severity.P3,
        title="Quota",
        sentence="less than a tenth of the {{ $labels.kind }} that the provider allows are left",
        value=lambda _: f"min by (job, provider, kind) ({LLM_RATE_REMAINING.name})",
        sign="<",
        threshold=0.1,
        unit="ratio",
        by="job, provider, kind",
        who=_OF_PROVIDER,
        hold=300,
        keep=300,
        board=BOARD_LLM,
    ),
    Condition(
        alert="SageToolFailing",
        trigger="tool-failing",
        severity=Severity.P2,
        title="Calls",
        sentence="more than a fifth of the calls of the tool fail",
        value=lambda windows: share(_TOOLS, windows.rate, by="job, tool"),
        threshold=0.2,
        unit="ratio",
        by="job, tool",
        who="the tool {{ $labels.tool }} for {{ $labels.job }}",
        samples=lambda windows: count(_TOOLS.total, windows.rate, by="job, tool"),
        min_samples=20,
        hold=300,
        keep=300,
        board=BOARD_AGENT,
    ),
    Condition(
        alert="SageRunawaySteps",
        trigger="steps",
        severity=Severity.P2,
        title="Steps",
        sentence=f"more than 5 % of requests call models and tools more than {_MANY_STEPS} times",
        value=_long_runs,
        threshold=0.05,
        unit="ratio",
        samples=lambda windows: count(Selector(STEPS), windows.rate, suffix="_count"),
        min_samples=20,
        hold=300,
        keep=300,
        board=BOARD_AGENT,
    ),
    Condition(
        alert="SageCostAboveUsual",
        trigger="cost",
        severity=Severity.P2,
        title="Cost",
        sentence="the last hour has cost more than three times the usual one of the last week",
        value=lambda windows: (
            f"{RECORD_LLM_COST_HOUR} / on (job) clamp_min({_usual(RECORD_LLM_COST_HOUR, windows, days=7)}, {_LEAST_USD:g})"
            f" and on (job) {RECORD_LLM_COST_HOUR} offset {duration(windows.scaled(_OLD_ENOUGH))}"
        ),
        threshold=3.0,
        unit="times",
        hold=600,
        keep=600,
        board=BOARD_LLM,
    ),
    Condition(
        alert="SageBudgetPace",
        trigger="budget",
        severity=Severity.P3,
        title="The budget",
        sentence="more than four fifths of the budget of {{ $labels.tenant }} are spent or set aside",
        value=lambda _: f"max by (job, tenant) ({BUDGET_USED.name})",
        threshold=0.8,
        unit="ratio",
        by="job, tenant",
        hold=300,
        keep=300,
        board=BOARD_LLM,
    ),
    Condition(
        alert="SageBudgetSpent",
        trigger="budget",
        severity=Severity.P2,
        title="The budget",
        sentence="the budget of {{ $labels.tenant }} is spent, and its requests are turned away",
        value=lambda _: f"max by (job, tenant) ({BUDGET_USED.name})",
        threshold=0.99,
        unit="ratio",
        by="job, tenant",
        hold=60,
        keep=300,
        board=BOARD_LLM,
    ),
    Condition(
        alert="SagePriceUnknown",
        trigger="price",
        severity=Severity.P3,
        title="Prices",
        sentence="calls within the hour of {{ $labels.model }}, which is in no price table and adds nothing to the cost",
        value=lambda windows: count(Selector(UNKNOWN_PRICE), windows.scaled(_HOUR), by=_MODEL),
        threshold=0,
        by=_MODEL,
        hold=300,
        keep=300,
        board=BOARD_LLM,
    ),
)
"""In the order in which they are looked at."""
