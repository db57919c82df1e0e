"""What is recorded of releases and triggers, and the alerts that ask for a rollback."""

from __future__ import annotations

from typing import Final

from sage_obs.alerts.links import Links
from sage_obs.alerts.model import AlertRule, Group, RecordingRule
from sage_obs.conventions import (
    ACTION_ROLLBACK,
    BOARD_FLEET,
    LABEL_ACTION,
    LABEL_RUNBOOK,
    LABEL_SEVERITY,
    LABEL_TRIGGER,
    LABEL_VERSION,
    RECORD_OVERHEAD_P95,
    RECORD_RELEASE_CHANGED,
    RECORD_RELEASE_INFO,
    RECORD_RELEASE_NEW,
    RUNBOOK_INCIDENT,
    Severity,
)
from sage_obs.slo import promql
from sage_obs.slo.signals import QuantileOverReference
from sage_obs.slo.triggers import TRIGGERS, Trigger
from sage_obs.slo.windows import Windows

GROUP_ROLLBACK: Final = "sage-rollback"


def group(windows: Windows, *, links: Links) -> Group:
    """All of it under these windows.

    One group, because Prometheus evaluates a group's rules in order and at one time: a value and its samples never stem from
    different moments.
    """
    rules = (*release_rules(windows), *(rule for trigger in TRIGGERS for rule in trigger_rules(trigger, windows)))
    alerts = tuple(rollback_alert(trigger, windows, links=links) for trigger in TRIGGERS)
    return Group(GROUP_ROLLBACK, windows.evaluation, (*rules, *alerts))


def release_rules(windows: Windows) -> tuple[RecordingRule, ...]:
    """What runs where, what is new, and the past that latency is compared with."""
    references = (
        RecordingRule(RECORD_OVERHEAD_P95, promql.overhead_p95(trigger.signal, windows))
        for trigger in TRIGGERS
        if isinstance(trigger.signal, QuantileOverReference)
    )
    return (
        RecordingRule(RECORD_RELEASE_INFO, promql.release_info(windows)),
        RecordingRule(RECORD_RELEASE_CHANGED, promql.release_changed(windows)),
        RecordingRule(RECORD_RELEASE_NEW, promql.release_new(windows)),
        *references,
    )


def trigger_rules(trigger: Trigger, windows: Windows) -> tuple[RecordingRule, ...]:
    """A trigger's value and samples per job and version."""
    return (
        RecordingRule(promql.recorded(trigger, "value"), promql.value(trigger.signal, windows)),
        RecordingRule(promql.recorded(trigger, "samples"), promql.samples(trigger.signal, windows)),
    )


def rollback_alert(trigger: Trigger, windows: Windows, *, links: Links) -> AlertRule:
    """The alert that asks for a rollback: the trigger's condition, for a version that is new."""
    return AlertRule(
        alert=trigger.alert,
        expr=f"({promql.condition(trigger)}) and on (job, {LABEL_VERSION}) {RECORD_RELEASE_NEW}",
        hold=windows.hold(trigger.hold),
        keep=windows.hold(trigger.keep),
        labels={
            LABEL_ACTION: ACTION_ROLLBACK,
            LABEL_RUNBOOK: RUNBOOK_INCIDENT,
            LABEL_SEVERITY: Severity.P1.value,
            LABEL_TRIGGER: trigger.slug,
        },
        annotations={
            "summary": f"{trigger.title} of release {{{{ $labels.version }}}} of {{{{ $labels.job }}}} calls for a rollback",
            "description": f"In release {{{{ $labels.version }}}} of {{{{ $labels.job }}}} {trigger.sentence}: {_value(trigger)}.",
            "runbook_url": links.runbook(RUNBOOK_INCIDENT),
            "dashboard_url": links.dashboard(BOARD_FLEET),
        },
    )


def _value(trigger: Trigger) -> str:
    """The template that writes the trigger's value in its unit."""
    if trigger.unit == "ratio":
        return f"{{{{ $value | humanizePercentage }}}} (threshold {trigger.threshold * 100:.4g}%)"
    return f'{{{{ $value | printf "%.2f" }}}} times the baseline (threshold {trigger.threshold:.4g})'
