"""promtool as an evaluator: its test runner evaluates rules over given series as a server does, and says what it finds at any time.

A test that expects nothing fails where there is something, and the failure shows all of it. Two such tests at every evaluation, for alerts
that have appeared since the one before and for those that are gone, give every change of every alert.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sage_obs.alerts import tools
from sage_obs.alerts.files import FileGroup
from sage_obs.alerts.nodes import span
from sage_obs.alerts.simulation.batches import Batch
from sage_obs.alerts.simulation.clock import shifted
from sage_obs.alerts.simulation.model import Incident, Series
from sage_obs.errors import ConfigError
from sage_obs.slo.windows import duration

TIMEOUT: Final = 3600.0
"""Seconds; a day at production's interval takes a few minutes."""
_FOUND: Final = re.compile(r'^ *expr: (?P<expr>"(?:[^"\\]|\\.)*"), time: (?P<time>\w+),?\n *exp:.*\n *got:(?P<got>.*)$', re.MULTILINE)
_SAMPLE: Final = re.compile(r"(?P<name>[A-Za-z_:][\w:]*)?\{(?P<labels>(?:[^\"{}]|\"(?:[^\"\\]|\\.)*\")*)\} (?P<value>[-+.\w]+)")
_LABEL: Final = re.compile(r'(?P<name>[A-Za-z_][\w]*|"(?:[^"\\]|\\.)*")=(?P<value>"(?:[^"\\]|\\.)*")')
_CHATTER: Final = re.compile(r"^\s*(Unit Testing:.*|FAILED:|SUCCESS|(name: .*))?\s*$")


@dataclass(frozen=True, slots=True)
class Sample:
    """A value of a series at a time, in seconds from the beginning."""

    at: float
    labels: Mapping[str, str]
    value: str


@dataclass(frozen=True, slots=True)
class Found:
    """`ALERTS` that appeared and that went, and what was recorded of what was asked for, at each evaluation of a batch."""

    appeared: tuple[Sample, ...]
    gone: tuple[Sample, ...]
    recorded: tuple[Sample, ...]


def evaluate(batch: Batch, incident: Incident, promtool: Path, folder: Path) -> Found:
    """Evaluate a batch's rules over an incident. Raises ConfigError, with promtool's words, for rules that cannot be evaluated."""
    rules = _write_rules(batch.groups, incident.origin, folder)
    before = f"offset {duration(batch.interval)}"
    appeared, gone = f"ALERTS unless ALERTS {before}", f"ALERTS {before} unless ALERTS"
    times = [number * batch.interval for number in range(math.floor(incident.seconds / batch.interval + 1e-6) + 1)]
    probes = ((expr, at) for at in times for expr in (appeared, gone, *sorted(batch.wanted)))
    (folder / "test.yml").write_text("\n".join(_test(batch, rules, incident, probes)))
    report = tools.run([str(promtool), "test", "rules", "test.yml"], folder, timeout=TIMEOUT)
    found = dict(_found(report.output))
    _check(report)
    return Found(
        tuple(found.get(appeared, ())),
        tuple(found.get(gone, ())),
        tuple(sample for name in sorted(batch.wanted) for sample in found.get(name, ())),
    )


def _write_rules(groups: Sequence[FileGroup], origin: float, folder: Path) -> list[tuple[str, str]]:
    """A file for each group, under a name that no other has; file and group in order of evaluation."""
    import yaml

    written: list[tuple[str, str]] = []
    for number, one in enumerate(groups):
        rules = tuple(replace(rule, expr=shifted(rule.expr, origin)) for rule in one.group.rules)
        name = f"{one.group.name} ({number})" if any(one.group.name == group for _, group in written) else one.group.name
        data = {**replace(one.group, name=name, rules=rules).data(), **({"limit": one.limit} if one.limit else {})}
        file = f"{number:04d}.yml"
        (folder / file).write_text(yaml.safe_dump({"groups": [data]}, allow_unicode=True))
        written.append((file, name))
    return written


def _test(batch: Batch, rules: Sequence[tuple[str, str]], incident: Incident, probes: Iterable[tuple[str, float]]) -> Iterator[str]:
    """The test file, line by line: a day's would take a YAML writer longer than its evaluation."""
    yield f"rule_files: {json.dumps([file for file, _ in rules])}"
    yield f"group_eval_order: {json.dumps([name for _, name in rules])}"
    yield f"evaluation_interval: {duration(batch.interval)}"
    yield f"tests:\n- interval: {duration(incident.step)}\n  input_series:"
    yield from (f"  - {json.dumps(one.data(), ensure_ascii=False)}" for one in incident.series)
    yield "  promql_expr_test:"
    yield from (f"  - {{expr: {json.dumps(expr)}, eval_time: {duration(at) if at else '0s'}, exp_samples: []}}" for expr, at in probes)


def _found(output: str) -> Iterator[tuple[str, list[Sample]]]:
    """By expression, everything that was there."""
    found: dict[str, list[Sample]] = {}
    for one in _FOUND.finditer(output):
        samples = found.setdefault(_unquoted(one["expr"]), [])
        samples.extend(_samples(one["got"], span(one["time"])))
    yield from found.items()


def _samples(text: str, at: float) -> Iterator[Sample]:
    for one in _SAMPLE.finditer(text):
        named = {"__name__": one["name"]} if one["name"] else {}
        labels = {_label(pair["name"]): _unquoted(pair["value"]) for pair in _LABEL.finditer(one["labels"])}
        yield Sample(at, named | labels, one["value"])


def _label(name: str) -> str:
    return _unquoted(name) if name.startswith('"') else name


def _unquoted(text: str) -> str:
    """What Go has quoted; its escapes are Python's."""
    return str(ast.literal_eval(text))


def _check(report: tools.ToolReport) -> None:
    """Raise for anything that promtool says beside what was asked for."""
    lines = [line.strip() for line in _FOUND.sub("", report.output).splitlines() if not _CHATTER.match(line)]
    if lines:
        raise ConfigError(
            f"Prometheus cannot evaluate this: {'; '.join(lines[:3])}.",
            hint="Correct the rule or the series that is named; `sage-obs alerts lint FILE` checks rules.",
        )


def as_series(samples: Iterable[Sample], *, interval: float, step: float, seconds: float) -> tuple[Series, ...]:
    """What was recorded every `interval` seconds, as series for those who read it, with a value every `step` seconds where there is one."""
    every: dict[tuple[tuple[str, str], ...], dict[float, str]] = {}
    for sample in samples:
        every.setdefault(tuple(sorted(sample.labels.items())), {})[sample.at] = sample.value
    return tuple(Series(series_text(dict(labels)), _values(values, interval, step, seconds)) for labels, values in sorted(every.items()))


def _values(values: Mapping[float, str], interval: float, step: float, seconds: float) -> str:
    tokens = ["_"] * (math.floor(seconds / step + 1e-6) + 1)
    there = False
    for number in range(math.floor(seconds / interval + 1e-6) + 1):
        at = number * interval
        slot = math.ceil(at / step - 1e-6)
        if slot < len(tokens) and (there or at in values):
            tokens[slot] = number_text(values[at]) if at in values else "stale"
        there = at in values
    return " ".join(tokens)


def number_text(text: str) -> str:
    """A number as promtool's notation has it."""
    return text.removeprefix("+")


def series_text(labels: Mapping[str, str]) -> str:
    """A series by its labels, as promtool's notation has it."""
    inner = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in sorted(labels.items()) if name != "__name__")
    return f"{labels.get('__name__', '')}{{{inner}}}"
