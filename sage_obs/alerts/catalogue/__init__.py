"""Every rule there is, in groups. Each group is a file of its own: load those you want."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sage_obs.alerts.catalogue import budget, models, operations, rollback, saturation, service
from sage_obs.alerts.conditions import Condition
from sage_obs.alerts.links import Links
from sage_obs.alerts.model import Group, RecordingRule
from sage_obs.alerts.settings import AlertSettings
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


KNOWN: Final = tuple(condition.alert for conditions in CONDITIONS.values() for condition in conditions)
"""The names of these alerts."""
_AS_IT_IS: Final = AlertSettings()


def groups(windows: Windows, *, links: Links, settings: AlertSettings = _AS_IT_IS) -> tuple[Group, ...]:
    """All rules under these windows, as the operator wants them."""
    recorded = {GROUP_SLO: budget.records(settings.objectives, windows), GROUP_MODELS: models.records(windows)}
    others = (_group(name, wanted(name, settings), recorded.get(name, ()), windows, links) for name in CONDITIONS)
    return (rollback.group(windows, links=links), *(group for group in others if group.rules))


def wanted(group: str, settings: AlertSettings) -> tuple[Condition, ...]:
    """The conditions of a group as the operator wants them."""
    return tuple(one for condition in CONDITIONS[group] if (one := settings.condition(condition)) is not None)


def _group(name: str, conditions: Sequence[Condition], records: Sequence[RecordingRule], windows: Windows, links: Links) -> Group:
    every = windows.evaluation * (budget.EVALUATIONS if name == GROUP_SLO else 1)
    return Group(name, every, (*records, *(condition.rule(windows, links=links, interval=every) for condition in conditions)))
