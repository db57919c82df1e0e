"""Alerts that do not depend on a release: something is over a threshold, or under it, for a while."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sage_obs.alerts.links import Links
from sage_obs.alerts.model import AlertRule
from sage_obs.conventions import BOARD_FLEET, LABEL_RUNBOOK, LABEL_SEVERITY, LABEL_TRIGGER, RUNBOOK_INCIDENT, Severity
from sage_obs.slo.windows import Windows

Expression = Callable[[Windows], str]

_SHOWN: Final = {
    "ratio": "{{ $value | humanizePercentage }}",
    "seconds": '{{ $value | printf "%.2f" }} s',
    "days": '{{ $value | printf "%.1f" }} days',
    "hours": '{{ $value | printf "%.1f" }} hours',
    "times": '{{ $value | printf "%.2f" }} times',
    "per second": '{{ $value | printf "%.0f" }} a second',
    "": '{{ $value | printf "%.0f" }}',
}
"""Templates of a value by its unit; the fewest that read well, as promtool's tests have to write them too."""


@dataclass(frozen=True, slots=True)
class Condition:
    """An alert: `value`, per `by`, is over `threshold` (under it where `sign` is `<`) for `hold` seconds, and kept for `keep` seconds.

    Where there is `samples`, it also rests on at least `min_samples`. `who` names in a title what it is about; `sentence` says what is
    wrong, and `unit` how the value is shown.
    """

    alert: str
    trigger: str
    severity: Severity
    title: str
    sentence: str
    value: Expression
    threshold: float
    hold: float
    keep: float
    sign: str = ">"
    unit: str = ""
    by: str = "job"
    who: str = "{{ $labels.job }}"
    samples: Expression | None = None
    min_samples: float = 0.0
    board: str = BOARD_FLEET

    def expr(self, windows: Windows) -> str:
        """PromQL that has a result where the alert's condition holds."""
        compared = f"({self.value(windows)}) {self.sign} {self.threshold:g}"
        if self.samples is None:
            return compared
        return f"{compared} and on ({self.by}) ({self.samples(windows)}) >= {self.min_samples:g}"

    def rule(self, windows: Windows, *, links: Links, interval: float) -> AlertRule:
        """The alert, in a group that is evaluated every `interval` seconds."""
        return AlertRule(
            alert=self.alert,
            expr=self.expr(windows),
            hold=self.held(windows, interval),
            keep=self.kept(windows, interval),
            labels={LABEL_RUNBOOK: RUNBOOK_INCIDENT, LABEL_SEVERITY: self.severity.value, LABEL_TRIGGER: self.trigger},
            annotations={
                "summary": f"{self.title} of {self.who}" if self.who else self.title,
                "description": f"{self.sentence[0].upper()}{self.sentence[1:]}: {_SHOWN[self.unit]}.",
                "runbook_url": links.runbook(RUNBOOK_INCIDENT),
                "dashboard_url": links.dashboard(self.board),
            },
        )

    def held(self, windows: Windows, interval: float) -> float:
        """How long the condition must hold, in whole evaluations."""
        return _whole(windows.hold(self.hold), interval)

    def kept(self, windows: Windows, interval: float) -> float:
        """How long the alert outlives it, in whole evaluations."""
        return _whole(windows.hold(self.keep), interval)


def _whole(seconds: float, interval: float) -> float:
    return math.ceil(round(seconds / interval, 6)) * interval
