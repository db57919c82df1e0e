"""Scenarios and trials as promtool's test files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from sage_obs.alerts.catalogue import wanted
from sage_obs.alerts.catalogue.rollback import GROUP_ROLLBACK
from sage_obs.alerts.conditions import Condition
from sage_obs.alerts.model import AlertRule, Group
from sage_obs.alerts.scenarios import Bench, Firing, Scenario, of_releases, of_trigger
from sage_obs.alerts.settings import AlertSettings
from sage_obs.alerts.timeline import input_series
from sage_obs.alerts.trials import Trial, trials
from sage_obs.conventions import LABEL_SLO, LABEL_VERSION
from sage_obs.slo.names import metrics_in
from sage_obs.slo.triggers import TRIGGERS
from sage_obs.slo.windows import Windows, duration

RELEASES: Final = "releases"
_AS_IT_IS: Final = AlertSettings()
_TEMPLATE: Final = re.compile(r"\{\{ (.*?) \}\}")


def promtool_files(groups: Sequence[Group], windows: Windows, *, settings: AlertSettings = _AS_IT_IS) -> dict[str, dict[str, Any]]:
    """One test file for each trigger, one for releases and one for each other group of rules: name → data.

    `rule_files` are the rules' paths as seen from the tests, only those that a file's alerts rest on.
    """
    rollback = next(group for group in groups if group.name == GROUP_ROLLBACK)
    files = _of_rollback(rollback, windows)
    for group in groups:
        if group is not rollback:
            files[group.name] = _of_conditions(group, _needed(group, groups), windows, settings)
    return files


def rules_file(group: Group) -> str:
    """The name of a group's file."""
    return f"{group.name}.yml"


def _needed(group: Group, groups: Sequence[Group]) -> tuple[Group, ...]:
    """A group and those whose recorded series it reads, these first."""
    read = {name for rule in group.rules for name in metrics_in(rule.expr)}
    others = (other for other in groups if other is not group and read & {rule.record for rule in other.records})
    return (*others, group)


def _of_rollback(group: Group, windows: Windows) -> dict[str, dict[str, Any]]:
    bench = Bench(windows)
    scenarios = {trigger.slug: tuple(of_trigger(trigger, bench)) for trigger in TRIGGERS} | {RELEASES: tuple(of_releases(bench))}
    extra = {trigger.slug: bench.ticks_of_interest(trigger) for trigger in TRIGGERS}
    return {
        name: _file((group,), windows.evaluation, [_test(name, every, group.alerts, extra.get(name, ()), windows)])
        for name, every in scenarios.items()
    }


def _of_conditions(group: Group, needed: Sequence[Group], windows: Windows, settings: AlertSettings) -> dict[str, Any]:
    conditions = {condition.alert: condition for condition in wanted(group.name, settings)}
    tests = [test for rule in group.alerts for test in condition_tests(rule, conditions[rule.alert], windows, group.interval, settings)]
    return _file(needed, group.interval, tests)


def condition_tests(
    rule: AlertRule, condition: Condition, windows: Windows, tick: float, settings: AlertSettings = _AS_IT_IS
) -> list[dict[str, Any]]:
    """Promtool's tests of one alert, whose group is evaluated every `tick` seconds."""
    every = trials(condition, windows, tick=tick, objectives=settings.objectives)
    return [_trial_test(rule, some, tick) for some in _apart(every)]


def _file(groups: Sequence[Group], interval: float, tests: list[dict[str, Any]]) -> dict[str, Any]:
    names = [rules_file(group) for group in groups]
    return {
        "rule_files": [f"../{name}" for name in names],
        "evaluation_interval": duration(interval),
        "group_eval_order": [group.name for group in groups],
        "tests": tests,
    }


def _apart(every: Sequence[Trial]) -> Iterator[tuple[Trial, ...]]:
    """Trials by what is looked at in them, and each of those apart whose alert is looked at only until a while before it ends."""
    for among in dict.fromkeys(trial.among for trial in every):
        some = tuple(trial for trial in every if trial.among == among)
        ending = tuple(trial for trial in some if trial.fires is None or trial.fires.ends is not None)
        if ending:
            yield ending
        yield from ((trial,) for trial in some if trial not in ending)


def _trial_test(rule: AlertRule, every: Sequence[Trial], tick: float) -> dict[str, Any]:
    """Trials of an alert side by side."""
    looks = sorted(_looks(every))
    test = {
        "name": rule.alert,
        "interval": duration(tick),
        "input_series": [flow.data(trial.name) for trial in every for flow in trial.flows],
    }
    if every[0].among:
        return test | {"promql_expr_test": [_among(rule, every, at, tick) for at in looks]}
    asked = [{"eval_time": duration(at * tick), "alertname": rule.alert, "exp_alerts": list(_fired(rule, every, at))} for at in looks]
    return test | {"alert_rule_test": asked}


def _among(rule: AlertRule, every: Sequence[Trial], at: int, tick: float) -> dict[str, Any]:
    """Which jobs the alert fires for, of one objective."""
    slo = every[0].among
    firing = [trial for trial in every if _fires_at(trial, at)]
    return {
        "eval_time": duration(at * tick),
        "expr": f'count by (job, {LABEL_SLO}) (ALERTS{{alertname="{rule.alert}", alertstate="firing", {LABEL_SLO}="{slo}"}})',
        "exp_samples": [{"labels": f'{{job="{trial.name}", {LABEL_SLO}="{slo}"}}', "value": 1} for trial in firing],
    }


def _fires_at(trial: Trial, at: int) -> bool:
    fires = trial.fires
    return fires is not None and fires.begins <= at and (fires.ends is None or at < fires.ends)


def _looks(every: Iterable[Trial]) -> set[int]:
    """When something is looked at: just before and at each edge, and where a trial wants it."""
    looks: set[int] = set()
    for trial in every:
        looks |= set(trial.looks)
        if trial.fires is not None:
            ends = trial.fires.ends
            looks |= {trial.fires.begins - 1, trial.fires.begins}
            looks |= {trial.ticks - 1} if ends is None else {ends - 1, ends}
    return {look for look in looks if look >= 0}


def _fired(rule: AlertRule, every: Iterable[Trial], at: int) -> Iterator[dict[str, Any]]:
    for trial in every:
        if (fires := trial.fires) is None or not _fires_at(trial, at):
            continue
        labels = {**({"job": trial.name} if trial.alone else {}), **fires.labels}
        value = fires.value(at)
        yield {
            "exp_labels": labels | dict(rule.labels),
            "exp_annotations": {name: expand(text, labels, value) for name, text in rule.annotations.items()},
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
    known |= {"$value | humanizePercentage": f"{value * 100:.4g}%"}
    known |= {f'$value | printf "%.{digits}f"': f"{value:.{digits}f}" for digits in (0, 1, 2)}
    return _TEMPLATE.sub(lambda match: known[match[1]] if "$value" in match[1] else known.get(match[1], ""), template)
