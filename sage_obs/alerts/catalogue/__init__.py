"""Every rule there is, in groups. Each group is a file of its own: load those you want."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from sage_obs.alerts.catalogue import budget, models, operations, rollback, saturation, service
from sage_obs.alerts.conditions import Condition
from sage_obs.alerts.links import Links
from sage_obs.alerts.model import Group, RecordingRule
from sage_obs.slo.objectives import OBJECTIVES, Objective
from sage_obs.slo.windows import Windows

GROUP_SERVICE: Final = "sage-service"
GROUP_SLO: Final = "sage-slo"
GROUP_SATURATION: Final = "sage-saturation"
GROUP_MODELS: Final = "sage-llm"
GROUP_OPERATIONS: Final = "sage-operations"

CONDITIONS: Final = {
    GROUP_SERVICE: service.CONDITIONS,
    GROUP_SLO: budget.CONDITIONS,
    GROUP_SATURATION: saturation.CONDITIONS,
    GROUP_MODELS: models.CONDITIONS,
    GROUP_OPERATIONS: operations.CONDITIONS,
}
"""The alerts that depend on no release, by the group they are in."""


def groups(windows: Windows, *, links: Links, objectives: Iterable[Objective] = OBJECTIVES) -> tuple[Group, ...]:
    """All rules under these windows, for these objectives."""
    recorded = {GROUP_SLO: budget.records(objectives, windows), GROUP_MODELS: models.records(windows)}
    others = (_group(name, conditions, recorded.get(name, ()), windows, links) for name, conditions in CONDITIONS.items())
    return (rollback.group(windows, links=links), *others)


def interval(group: str, windows: Windows) -> float:
    """Seconds between evaluations of a group."""
    return windows.evaluation * (budget.EVALUATIONS if group == GROUP_SLO else 1)


def _group(name: str, conditions: Sequence[Condition], records: Sequence[RecordingRule], windows: Windows, links: Links) -> Group:
    every = interval(name, windows)
    return Group(name, every, (*records, *(condition.rule(windows, links=links, interval=every) for condition in conditions)))
