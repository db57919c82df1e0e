"""Proof that the trials of an alert would notice a broken one: whatever is changed in it, promtool fails."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_obs.alerts import tools
from sage_obs.alerts.catalogue import CONDITIONS, KNOWN, groups
from sage_obs.alerts.conditions import Condition
from sage_obs.alerts.links import Links
from sage_obs.alerts.model import AlertRule, Group
from sage_obs.alerts.promtest import condition_tests
from sage_obs.alerts.render import rules_text, to_yaml
from sage_obs.alerts.stages import STAGES, Stage, as_count, at_once
from sage_obs.alerts.trials import trials
from sage_obs.conventions import ALERT_WATCHDOG
from sage_obs.slo.windows import DRILL, duration, seconds
from sage_obs.stack.binaries import find

_RANGE = re.compile(r"\[(\d+(?:ms|s|m|h|d))\]")
_FOUND = {one.alert: (group, one) for group, every in CONDITIONS.items() for one in every}


_NO_STAGE = Stage(lambda *_: [], at_once, {})
_EQUAL = {
    "SageTargetsDown": {"windows-doubled"},  # how long ago our metrics were seen: any time will do
    "SageTelemetryMissing": {"windows-doubled"},  # the same
    "SageErrorBudgetExhausted": {"windows-doubled"},  # a month is longer than the trial
    "SageMemoryLeak": {"windows-doubled"},  # a straight line is the same over any window
    "SageLlmSlow": {"windows-doubled"},  # a median of what is always the same is the same over more of it
    "SageCostAboveUsual": {"windows-doubled"},  # the same
}
"""Changes that change nothing that can be seen, by alert."""
_SLOW = ("SageErrorBudgetBurn1d", "SageErrorBudgetBurn3d")
"""Made as that of an hour is; days take long to evaluate, so that these are changed in their numbers only."""
_NUMBERS = ("threshold-higher", "threshold-lower", "hold-shorter")


def _limits(condition: Condition) -> tuple[float, float]:
    """A threshold at which the trials that fire do not, and one at which the others do."""
    stage = STAGES.get(condition.alert)
    if condition.alert == "SageCrashLoop":
        return condition.threshold + 1, condition.threshold - 1
    if stage is not None and stage.levels is not None:
        above, below = stage.levels
        if stage.course is as_count:
            return 1e6, -1.0
        return (above, below * 0.99) if condition.sign == ">" else (above, below * 1.01)
    strict, lenient = (1.3, 0.7) if condition.sign == ">" else (0.7, 1.3)
    return condition.threshold * strict or 1e6, condition.threshold * lenient or -1.0


def _mutants(rule: AlertRule, condition: Condition, group: Group) -> Iterator[tuple[str, AlertRule]]:
    """What may be wrong with a rule; only what changes it."""
    compared = f") {condition.sign} {condition.threshold:g}"
    reverse = {">": "<", "<": ">"}[condition.sign]
    strict, lenient = _limits(condition)

    def expr(old: str, new: str) -> AlertRule:
        assert old in rule.expr
        return dataclasses.replace(rule, expr=rule.expr.replace(old, new))

    yield "threshold-higher", expr(compared, f") {condition.sign} {strict:g}")
    if condition.alert not in {"SageJobAbsent", "SageTelemetryMissing"} and STAGES.get(condition.alert, _NO_STAGE).course is not as_count:
        yield "threshold-lower", expr(compared, f") {condition.sign} {lenient:g}")
    yield "comparison-reversed", expr(compared, f") {reverse} {condition.threshold:g}")
    yield "hold-longer", dataclasses.replace(rule, hold=rule.hold + group.interval)
    yield "hold-shorter", dataclasses.replace(rule, hold=rule.hold - group.interval)
    if any(trial.fires is not None and trial.fires.ends is not None for trial in trials(condition, DRILL, tick=group.interval)):
        yield "keep-longer", dataclasses.replace(rule, keep=rule.keep + group.interval)
        yield "keep-shorter", dataclasses.replace(rule, keep=rule.keep - group.interval)
    if condition.samples is not None:
        yield "guard-higher", expr(f">= {condition.min_samples:g}", f">= {condition.min_samples * 1.5e6:g}")
        yield "no-guard", expr(f">= {condition.min_samples:g}", ">= 0")
    if _RANGE.search(rule.expr):
        yield "windows-doubled", dataclasses.replace(rule, expr=_RANGE.sub(lambda one: f"[{duration(2 * seconds(one[1]))}]", rule.expr))
    yield "severity", dataclasses.replace(rule, labels={**rule.labels, "severity": "P4"})
    yield "annotation", dataclasses.replace(rule, annotations={**rule.annotations, "summary": "!"})


def _passes(rule: AlertRule, tests: list[dict[str, Any]], others: list[Group], group: Group, folder: Path) -> bool:
    """Whether the trials still hold with this rule alone in its group, beside what is recorded."""
    alone = dataclasses.replace(group, rules=(*group.records, rule))
    (folder / "rules.yml").write_text(rules_text((*others, alone), profile=DRILL.name))
    data = {"rule_files": ["../rules.yml"], "evaluation_interval": duration(group.interval), "tests": tests}
    (folder / "tests").mkdir(exist_ok=True)
    (folder / "tests/one.yml").write_text(to_yaml(data, profile=DRILL.name))
    return tools.run_tests(find("promtool"), folder, names=("one",)).passed


@pytest.mark.parametrize("name", [name for name in KNOWN if name != ALERT_WATCHDOG])
def test_whatever_is_changed_in_an_alert_is_noticed(name: str, tmp_path: Path) -> None:
    """Threshold, comparison, times, guard, windows, labels and annotations."""
    rules = {group.name: group for group in groups(DRILL, links=Links())}
    of, condition = _FOUND[name]
    group = rules[of]
    [rule] = [one for one in group.alerts if one.alert == name]
    others = [dataclasses.replace(rules["sage-rollback"], rules=rules["sage-rollback"].records)] if of == "sage-service" else []
    tests = condition_tests(rule, condition, DRILL, group.interval)
    assert _passes(rule, tests, others, group, tmp_path)
    mutants = {what: mutant for what, mutant in _mutants(rule, condition, group) if name not in _SLOW or what in _NUMBERS}
    survivors = {what for what, mutant in mutants.items() if _passes(mutant, tests, others, group, tmp_path)}
    assert survivors == _EQUAL.get(name, set())
