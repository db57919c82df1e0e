"""What a rules file holds, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sage_obs.slo.windows import duration


@dataclass(frozen=True, slots=True)
class RecordingRule:
    """A series `record` that holds the result of `expr`, with these labels beside its own."""

    record: str
    expr: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """The rule as a rules file writes it."""
        return {"record": self.record, "expr": self.expr, **({"labels": dict(self.labels)} if self.labels else {})}


@dataclass(frozen=True, slots=True)
class AlertRule:
    """An alert that fires once `expr` has had a result for `hold` seconds and stays until it had none for `keep` seconds."""

    alert: str
    expr: str
    hold: float
    keep: float
    labels: Mapping[str, str]
    annotations: Mapping[str, str]

    def data(self) -> dict[str, Any]:
        """The rule as a rules file writes it."""
        return {
            "alert": self.alert,
            "expr": self.expr,
            "for": duration(self.hold),
            "keep_firing_for": duration(self.keep),
            "labels": dict(self.labels),
            "annotations": dict(self.annotations),
        }


@dataclass(frozen=True, slots=True)
class Group:
    """Rules evaluated in this order, every `interval` seconds, at one point in time."""

    name: str
    interval: float
    rules: tuple[RecordingRule | AlertRule, ...]

    def data(self) -> dict[str, Any]:
        """The group as a rules file writes it."""
        return {"name": self.name, "interval": duration(self.interval), "rules": [rule.data() for rule in self.rules]}

    @property
    def alerts(self) -> tuple[AlertRule, ...]:
        """The alerting rules."""
        return tuple(rule for rule in self.rules if isinstance(rule, AlertRule))

    @property
    def records(self) -> tuple[RecordingRule, ...]:
        """The recording rules."""
        return tuple(rule for rule in self.rules if isinstance(rule, RecordingRule))
