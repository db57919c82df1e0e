"""Rules about rules of somebody else's: what promtool says, and what holds whatever the rules are about."""

from __future__ import annotations

import enum
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from sage_obs.alerts import tools
from sage_obs.alerts.files import FileGroup, name_of, read_rules
from sage_obs.alerts.model import AlertRule
from sage_obs.alerts.simulation.reading import reads
from sage_obs.conventions import LABEL_SEVERITY, Severity
from sage_obs.errors import ConfigError
from sage_obs.slo.names import known_names

_VALUE: Final = re.compile(r"\$value|\.Value\b")
_OWN: Final = "sage_"
_ANNOTATIONS: Final = ("summary", "description", "runbook_url")
_PLACE: Final = re.compile(r"(?P<file>.*?):(?P<line>\d+)(?::\d+)?: (?P<message>.*)")
_PROMTOOL: Final = re.compile(
    r"(?:.*?: )?(?:(?P<line>\d+):\d+: )?group \"(?P<group>\d+)\", rule (?P<number>\d+), \"(?P<rule>.*?)\": (?P<message>.*)"
)
_CHATTER: Final = re.compile(r"Checking .*|\s*SUCCESS: .*|\s*FAILED:\s*|\s*")


class Level(enum.StrEnum):
    """How bad it is: an error does not do what it says, a warning may be meant."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class FileFinding:
    """A defect of a rule in a file; `group` and `rule` are "" where it is the file's."""

    file: str
    line: int
    group: str
    rule: str
    level: Level
    message: str

    def __str__(self) -> str:
        who = " ".join(part for part in (self.group, self.rule) if part)
        return f"{self.file}:{self.line}: {self.level}: {who}{': ' if who else ''}{self.message}"

    def data(self) -> dict[str, str | int]:
        """As JSON has it."""
        return asdict(self)


def lint_files(paths: Sequence[Path], *, interval: float, promtool: Path | None, also: Iterable[str] = ()) -> tuple[FileFinding, ...]:
    """Every finding in these files, in the order of files and lines; without `promtool` what it would say is missing.

    A group without an interval is taken to be evaluated every `interval` seconds; `also` are metrics that are exposed beside ours.
    """
    groups: list[FileGroup] = []
    findings: list[FileFinding] = []
    for path in paths:
        try:
            found = read_rules(path, interval=interval)
        except ConfigError as exc:
            findings.append(_unreadable(path, exc))
            continue
        groups += found
        findings += _promtool(found, promtool) if promtool else ()
    checks = _CHECKS if promtool else (can_be_read, *_CHECKS)
    findings += [finding for check in checks for finding in check(tuple(groups))]
    findings += reads_known_series(tuple(groups), frozenset(also))
    order = {str(path): number for number, path in enumerate(paths)}
    return tuple(sorted(findings, key=lambda one: (order.get(one.file, 0), one.line, one.level, one.message)))


def _unreadable(path: Path, error: ConfigError) -> FileFinding:
    place = _PLACE.fullmatch(error.message)
    message = " ".join(part for part in (place["message"] if place else error.message, error.hint) if part)
    return FileFinding(str(path), int(place["line"]) if place else 1, "", "", Level.ERROR, message)


def _promtool(groups: Sequence[FileGroup], promtool: Path) -> Iterator[FileFinding]:
    """What `promtool check rules` finds in a file. It gets the groups as they were understood, named by their number: places are ours."""
    import yaml

    numbered = [replace(one.group, name=str(number)).data() for number, one in enumerate(groups)]
    with tempfile.TemporaryDirectory(prefix="sage-obs-lint-") as folder:
        (Path(folder) / "rules.yml").write_text(yaml.safe_dump({"groups": numbered}, allow_unicode=True))
        report = tools.check_files(promtool, ["rules.yml"], Path(folder))
    if report.passed:
        return
    for text in report.output.splitlines():
        if _CHATTER.fullmatch(text):
            continue
        found = _PROMTOOL.fullmatch(text.strip())
        yield (
            _placed(groups, found)
            if found
            else FileFinding(groups[0].file, 1, "", "", Level.ERROR, f"promtool: {text.strip().removeprefix('rules.yml: ')}")
        )


def _placed(groups: Sequence[FileGroup], found: re.Match[str]) -> FileFinding:
    group = groups[int(found["group"])]
    line = group.lines[min(int(found["number"]), len(group.lines)) - 1]
    return FileFinding(group.file, line, group.group.name, found["rule"], Level.ERROR, f"promtool: {found['message']}")


def _finding(group: FileGroup, line: int, rule: str, level: Level, message: str) -> FileFinding:
    return FileFinding(group.file, line, group.group.name, rule, level, message)


def _alerts(groups: Iterable[FileGroup]) -> Iterator[tuple[FileGroup, int, AlertRule]]:
    return ((group, line, rule) for group in groups for line, rule in group.rules if isinstance(rule, AlertRule))


def says_what_to_do(groups: tuple[FileGroup, ...]) -> Iterator[FileFinding]:
    """An alert has a severity by which it is routed, and annotations that help whom it wakes."""
    for group, line, rule in _alerts(groups):
        severity = rule.labels.get(LABEL_SEVERITY)
        if severity is None:
            yield _finding(group, line, rule.alert, Level.WARNING, "has no severity, by which alerts are routed")
        elif severity not in set(Severity):
            yield _finding(group, line, rule.alert, Level.WARNING, f"has the severity {severity!r}; ours are {', '.join(Severity)}")
        if missing := [name for name in _ANNOTATIONS if not rule.annotations.get(name, "").strip()]:
            yield _finding(group, line, rule.alert, Level.WARNING, f"has no {', no '.join(missing)}")


def tells_the_value(groups: tuple[FileGroup, ...]) -> Iterator[FileFinding]:
    """An annotation shows the value; a label never does, or every evaluation would be a new alert."""
    for group, line, rule in _alerts(groups):
        for name, text in rule.labels.items():
            if _VALUE.search(text):
                message = f"has the value in the label {name}, which makes a new alert of every value"
                yield _finding(group, line, rule.alert, Level.ERROR, message)
        if rule.annotations and not any(_VALUE.search(text) for text in rule.annotations.values()):
            yield _finding(group, line, rule.alert, Level.WARNING, "shows its value in no annotation ({{ $value }})")


def waits_whole_evaluations(groups: tuple[FileGroup, ...]) -> Iterator[FileFinding]:
    """Hold and keep times are whole evaluations, or they are longer than they say."""
    for group, line, rule in _alerts(groups):
        every = group.group.interval
        for name, seconds in (("for", rule.hold), ("keep_firing_for", rule.keep)):
            if abs(seconds / every - round(seconds / every)) > 1e-9:  # noqa: PLR2004 - what floats lose
                where = "its group's" if group.own_interval else "the usual"
                yield _finding(
                    group, line, rule.alert, Level.WARNING, f"has {name} {seconds:g} s, which is no multiple of {where} {every:g} s"
                )
        if not rule.hold:
            yield _finding(group, line, rule.alert, Level.WARNING, "has no `for`, so that one evaluation is enough to fire")


def records_before_reading(groups: tuple[FileGroup, ...]) -> Iterator[FileFinding]:
    """A recorded series is made earlier in its group than it is read, or it is one evaluation old."""
    for group in groups:
        left = [rule.record for rule in group.group.records]
        for line, rule in group.rules:
            for late in sorted(_metrics(rule.expr) & set(left)):
                yield _finding(group, line, name_of(rule), Level.WARNING, f"reads {late} before its group records it")
            if name_of(rule) in left:
                left.remove(name_of(rule))


def has_one_name(groups: tuple[FileGroup, ...]) -> Iterator[FileFinding]:
    """No two rules make the same alert or series, and no two groups of a file have one name."""
    seen: dict[tuple[str, ...], str] = {}
    for group in groups:
        place = f"{group.file}:{group.line}"
        if (first := seen.setdefault(("group", group.file, group.group.name), place)) != place:
            yield _finding(group, group.line, "", Level.ERROR, f"is the name of another group too, in line {first.rpartition(':')[2]}")
        for line, rule in group.rules:
            made = f"{group.file}:{line}"
            key = (type(rule).__name__, name_of(rule), *(f"{name}={value}" for name, value in sorted(rule.labels.items())))
            if (first := seen.setdefault(key, made)) != made:
                yield _finding(group, line, name_of(rule), Level.ERROR, f"is defined with the same labels in {first} too")


def has_rules(groups: tuple[FileGroup, ...]) -> Iterator[FileFinding]:
    """A group without rules is left over or not indented."""
    for group in groups:
        if not group.group.rules:
            yield _finding(group, group.line, "", Level.WARNING, "has no rules")


def reads_known_series(groups: tuple[FileGroup, ...], also: frozenset[str]) -> Iterator[FileFinding]:
    """What bears our prefix is something that we expose or these files record, so that no rule is dead."""
    known = known_names() | also | {rule.record for group in groups for rule in group.group.records}
    for group in groups:
        for line, rule in group.rules:
            for name in sorted(_metrics(rule.expr) - known):
                if name.startswith(_OWN):
                    yield _finding(group, line, name_of(rule), Level.ERROR, f"reads {name}, which nothing exposes")


def _metrics(expr: str) -> frozenset[str]:
    """What an expression reads; nothing of one that is no PromQL, which is another's finding."""
    try:
        return frozenset(one.metric for one in reads(expr) if one.metric)
    except ValueError:
        return frozenset()


def can_be_read(groups: tuple[FileGroup, ...]) -> Iterator[FileFinding]:
    """Expressions are PromQL, as far as can be said without promtool."""
    for group in groups:
        for line, rule in group.rules:
            try:
                reads(rule.expr)
            except ValueError as exc:
                yield _finding(group, line, name_of(rule), Level.ERROR, f"is no PromQL: {' '.join(str(exc).split())}")


_CHECKS: Final[tuple[Callable[[tuple[FileGroup, ...]], Iterator[FileFinding]], ...]] = (
    says_what_to_do,
    tells_the_value,
    waits_whole_evaluations,
    records_before_reading,
    has_one_name,
    has_rules,
)
