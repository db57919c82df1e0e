"""Error budgets: how fast they are spent, over several windows at once (SRE workbook, chapter 5), and when they are gone.

The rules know an objective by three recorded series only, so that one of a user's own needs no alert of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sage_obs.alerts.conditions import Condition
from sage_obs.alerts.model import RecordingRule
from sage_obs.conventions import (
    BOARD_SLO,
    LABEL_SLO,
    RECORD_SLO_BAD,
    RECORD_SLO_BUDGET,
    RECORD_SLO_TOTAL,
    Severity,
)
from sage_obs.slo.burn import BUDGET_DAYS, BURNS, Burn
from sage_obs.slo.objectives import Objective
from sage_obs.slo.windows import Windows, duration, seconds

EVALUATIONS: Final = 4
"""The group is evaluated every so many evaluations: its windows are hours and days."""
_BY: Final = f"job, {LABEL_SLO}"
_WHO: Final = f"{{{{ $labels.{LABEL_SLO} }}}} for {{{{ $labels.job }}}}"
_DAY: Final = 86_400.0
_LEAST_BAD: Final = 10.0
"""Events; fewer spend no budget that anybody should get up for."""
_SEVERITIES: Final = {"1h": Severity.P1, "6h": Severity.P1, "1d": Severity.P2, "3d": Severity.P3}
_HOLDS: Final = {"1h": 120.0, "6h": 300.0, "1d": 900.0, "3d": 3600.0}


def records(objectives: Iterable[Objective], windows: Windows) -> tuple[RecordingRule, ...]:
    """Bad events and all events a second, by job, and the budget, of each objective.

    Events and not shares are recorded, as the mean of shares is not the share of the events.
    """
    window, every = duration(windows.rate), tuple(objectives)
    return (
        *(RecordingRule(RECORD_SLO_TOTAL, one.events.total_rate(window), {LABEL_SLO: one.name}) for one in every),
        *(RecordingRule(RECORD_SLO_BAD, one.events.bad_rate(window), {LABEL_SLO: one.name}) for one in every),
        *(RecordingRule(RECORD_SLO_BUDGET, _budget(one), {LABEL_SLO: one.name}) for one in every),
    )


def _budget(objective: Objective) -> str:
    """The share of events that may be bad, for each job that has events."""
    return f'0 * {RECORD_SLO_TOTAL}{{{LABEL_SLO}="{objective.name}"}} + {objective.budget:g}'


def burn(window: float) -> str:
    """The burn rate over a window in seconds: 1 spends the budget in its period."""
    bad, total = (f"sum_over_time({record}[{duration(window)}])" for record in (RECORD_SLO_BAD, RECORD_SLO_TOTAL))
    return f"{bad} / ({total} > 0) / on ({_BY}) {RECORD_SLO_BUDGET}"


def bad_events(window: float, windows: Windows) -> str:
    """About how many bad events there were."""
    return f"sum_over_time({RECORD_SLO_BAD}[{duration(window)}]) * {windows.evaluation * EVALUATIONS:g}"


def _burns(one: Burn) -> Condition:
    """Over the factor in the long window, and still in the short one."""

    def value(windows: Windows) -> str:
        long, short = (windows.scaled(seconds(window)) for window in (one.long, one.short))
        return f"{burn(long)} and on ({_BY}) ({burn(short)}) > {one.factor:g}"

    return Condition(
        alert=f"SageErrorBudgetBurn{one.long}",
        trigger=one.slug,
        severity=_SEVERITIES[one.long],
        title="The error budget",
        sentence=f"for {one.long} it is spent faster than {one.factor:g} times what would last {BUDGET_DAYS} days",
        value=value,
        threshold=one.factor,
        unit="times",
        by=_BY,
        who=_WHO,
        samples=lambda windows: bad_events(windows.scaled(seconds(one.long)), windows),
        min_samples=_LEAST_BAD,
        hold=_HOLDS[one.long],
        keep=300,
        board=BOARD_SLO,
    )


CONDITIONS: Final = (
    *(_burns(one) for one in BURNS),
    Condition(
        alert="SageErrorBudgetExhausted",
        trigger="budget-exhausted",
        severity=Severity.P2,
        title="The error budget",
        sentence=f"the budget of {BUDGET_DAYS} days is spent, by this factor",
        value=lambda windows: burn(windows.scaled(BUDGET_DAYS * _DAY)),
        threshold=1.0,
        unit="times",
        by=_BY,
        who=_WHO,
        samples=lambda windows: bad_events(windows.scaled(BUDGET_DAYS * _DAY), windows),
        min_samples=_LEAST_BAD,
        hold=3600,
        keep=300,
        board=BOARD_SLO,
    ),
)
"""In the order in which they are looked at."""
