"""Rules about the rules. A finding names the rule it is about and says what to change."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from sage_obs.alerts.model import AlertRule, Group
from sage_obs.conventions import LABEL_RUNBOOK, LABEL_SEVERITY, LABEL_TRIGGER, Severity
from sage_obs.slo.names import known_names, metrics_in

_REQUIRED_LABELS: Final = (LABEL_RUNBOOK, LABEL_SEVERITY, LABEL_TRIGGER)
_REQUIRED_ANNOTATIONS: Final = ("summary", "description", "runbook_url", "dashboard_url")
_VALUE: Final = re.compile(r"\$value|\.Value\b")


@dataclass(frozen=True, slots=True)
class Finding:
    """A defect of a rule."""

    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.message}"


def lint(groups: Iterable[Group], *, also: frozenset[str] = frozenset()) -> tuple[Finding, ...]:
    """Every finding, in the order of the rules. Beside what the agents expose, rules may read the series `also`."""
    every = tuple(groups)
    found = (finding for check in _CHECKS for finding in check(every))
    return (*found, *reads_known_series(every, also=also))


def _alerts(groups: Iterable[Group]) -> Iterator[tuple[Group, AlertRule]]:
    return ((group, rule) for group in groups for rule in group.alerts)


def says_what_to_do(groups: tuple[Group, ...]) -> Iterator[Finding]:
    """Every alert has its labels and annotations, and a severity that exists."""
    for _, rule in _alerts(groups):
        for name in (*_REQUIRED_LABELS, *_REQUIRED_ANNOTATIONS):
            if not (rule.labels.get(name) or rule.annotations.get(name)):
                yield Finding(rule.alert, f"has no {name}")
        if rule.labels.get(LABEL_SEVERITY) not in set(Severity):
            yield Finding(rule.alert, f"has a severity other than {', '.join(Severity)}")


def tells_the_value(groups: tuple[Group, ...]) -> Iterator[Finding]:
    """A description shows the value; a label never does, or every evaluation would be a new alert."""
    for _, rule in _alerts(groups):
        if not _VALUE.search(rule.annotations.get("description", "")):
            yield Finding(rule.alert, "has a description without $value")
        for name, text in rule.labels.items():
            if _VALUE.search(text):
                yield Finding(rule.alert, f"has the value in the label {name}, which makes a new alert of every value")


def reads_known_series(groups: tuple[Group, ...], *, also: frozenset[str] = frozenset()) -> Iterator[Finding]:
    """Expressions read what the agents expose or what is recorded, so that no rule is dead."""
    known = known_names() | also
    for group in groups:
        for rule in group.rules:
            for name in sorted(metrics_in(rule.expr) - known):
                yield Finding(rule.alert if isinstance(rule, AlertRule) else rule.record, f"reads {name}, which nothing exposes")


def records_before_reading(groups: tuple[Group, ...]) -> Iterator[Finding]:
    """A recorded series is made earlier in its group than it is read, or it would be one evaluation old."""
    for group in groups:
        recorded = {rule.record for rule in group.records}
        made: set[str] = set()
        for rule in group.rules:
            name = rule.alert if isinstance(rule, AlertRule) else rule.record
            for late in sorted((metrics_in(rule.expr) & recorded) - made):
                yield Finding(name, f"reads {late} before its group records it")
            made.add(name)


def has_one_name(groups: tuple[Group, ...]) -> Iterator[Finding]:
    """No two rules make the same series or alert; the same name with other labels is another series."""
    names = Counter(
        rule.alert if isinstance(rule, AlertRule) else " ".join((rule.record, *rule.labels.values()))
        for group in groups
        for rule in group.rules
    )
    for name, times in sorted(names.items()):
        if times > 1:
            yield Finding(name, f"is defined {times} times")


def waits_whole_evaluations(groups: tuple[Group, ...]) -> Iterator[Finding]:
    """Hold and keep times are at least one evaluation and whole evaluations, or they are longer than they say."""
    for group, rule in _alerts(groups):
        for name, seconds in (("for", rule.hold), ("keep_firing_for", rule.keep)):
            evaluations = seconds / group.interval
            if evaluations < 1 or abs(evaluations - round(evaluations)) > 1e-9:  # noqa: PLR2004 - what floats lose
                yield Finding(rule.alert, f"has {name} {seconds:g} s, which is not a multiple of its group's {group.interval:g} s")


_CHECKS: Final[tuple[Callable[[tuple[Group, ...]], Iterator[Finding]], ...]] = (
    says_what_to_do,
    tells_the_value,
    records_before_reading,
    has_one_name,
    waits_whole_evaluations,
)
