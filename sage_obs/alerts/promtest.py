"""Scenarios as promtool's test files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sage_obs.alerts.model import AlertRule, Group
from sage_obs.alerts.scenarios import Bench, Firing, Scenario, of_releases, of_trigger
from sage_obs.alerts.timeline import input_series
from sage_obs.conventions import LABEL_VERSION
from sage_obs.slo.triggers import TRIGGERS
from sage_obs.slo.windows import Windows, duration

RELEASES: Final = "releases"
_TEMPLATE: Final = re.compile(r"\{\{ (.*?) \}\}")


def promtool_files(groups: Iterable[Group], windows: Windows, *, rules_file: str) -> dict[str, dict[str, Any]]:
    """One test file per trigger and one for releases: name → data. `rules_file` is the rules' path as seen from the tests."""
    bench = Bench(windows)
    alerts = tuple(rule for group in groups for rule in group.alerts)
    scenarios = {trigger.slug: tuple(of_trigger(trigger, bench)) for trigger in TRIGGERS} | {RELEASES: tuple(of_releases(bench))}
    extra = {trigger.slug: bench.ticks_of_interest(trigger) for trigger in TRIGGERS}
    return {
        name: {
            "rule_files": [rules_file],
            "evaluation_interval": duration(windows.evaluation),
            "tests": [_test(name, every, alerts, extra.get(name, ()), windows)],
        }
        for name, every in scenarios.items()
    }


def _test(
    name: str, scenarios: tuple[Scenario, ...], alerts: tuple[AlertRule, ...], extra: tuple[int, ...], windows: Windows
) -> dict[str, Any]:
    firing = [(scenario.name, one) for scenario in scenarios for one in scenario.firing]
    edges = {tick for _, one in firing for tick in (one.begins - 1, one.begins, one.ends - 1, one.ends)}
    return {
        "name": name,
        "interval": duration(windows.scrape),
        "input_series": [
            series for scenario in scenarios for series in input_series(scenario.instances, job=scenario.name, scrape=windows.scrape)
        ],
        "alert_rule_test": [
            {"eval_time": duration(tick * windows.scrape), "alertname": rule.alert, "exp_alerts": _expected(rule, firing, tick)}
            for tick in sorted(edges | set(extra))
            for rule in alerts
        ],
    }


def _expected(rule: AlertRule, firing: Iterable[tuple[str, Firing]], tick: int) -> list[dict[str, Any]]:
    """Exactly what promtool must find for this rule at this tick; an empty list says that it must not fire."""
    return [_alert(rule, job, one) for job, one in firing if one.trigger.alert == rule.alert and one.begins <= tick < one.ends]


def _alert(rule: AlertRule, job: str, firing: Firing) -> dict[str, Any]:
    labels = {"job": job, LABEL_VERSION: firing.version}
    return {
        "exp_labels": labels | dict(rule.labels),
        "exp_annotations": {name: expand(text, labels, firing.value) for name, text in rule.annotations.items()},
    }


def expand(template: str, labels: Mapping[str, str], value: float) -> str:
    """A template as Prometheus would write it, for the few expressions the catalogue uses. Raises KeyError for any other."""
    known = {f"$labels.{name}": text for name, text in labels.items()}
    known |= {f"$labels.{name} | urlquery": text for name, text in labels.items()}
    known |= {"$value | humanizePercentage": f"{value * 100:.4g}%", '$value | printf "%.2f"': f"{value:.2f}"}
    return _TEMPLATE.sub(lambda match: known[match[1]], template)
