"""What an expression reads, and how far back it looks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from sage_obs.alerts.files import FileGroup, name_of
from sage_obs.alerts.model import AlertRule, RecordingRule
from sage_obs.errors import ConfigError
from sage_obs.slo.promql import quote

LOOKBACK: Final = 300.0
"""Seconds for which Prometheus takes a series' last value for its present one, unless it is told otherwise."""
ALERTS: Final = frozenset({"ALERTS", "ALERTS_FOR_STATE"})
"""What alerting rules make beside alerts."""
_OPERATORS: Final = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}


@dataclass(frozen=True, slots=True)
class Read:
    """A metric ("" where only labels say which), its selector without window or offset, and how many seconds that reaches back."""

    metric: str
    selector: str
    reach: float


@lru_cache(maxsize=4096)
def reads(expr: str) -> tuple[Read, ...]:
    """What an expression reads. Raises ValueError, with the parser's reason, for what is no PromQL."""
    import promql_parser

    try:
        tree = promql_parser.parse(expr)
    except ValueError:
        raise
    except BaseException as exc:  # the parser is native code, and its panics are no Exceptions
        if isinstance(exc, (KeyboardInterrupt, SystemExit)):
            raise
        raise ValueError(f"the parser gave up ({exc})") from exc
    return tuple(_walk(tree, 0.0))


def rule_reads(group: FileGroup, line: int, rule: RecordingRule | AlertRule) -> tuple[Read, ...]:
    """The same of a rule. Raises ConfigError, naming the rule."""
    try:
        return reads(rule.expr)
    except ValueError as exc:
        why = " ".join(str(exc).split())
        raise ConfigError(f"{group.file}:{line}: the expression of {name_of(rule)} is no PromQL: {why}.") from exc


def _walk(node: Any, around: float) -> Iterator[Read]:
    match type(node).__name__:
        case "VectorSelector":
            yield _read(node, around + LOOKBACK)
        case "MatrixSelector":
            yield _read(node.vector_selector, around + node.range.total_seconds())
        case "SubqueryExpr":
            yield from _walk(node.expr, around + node.range.total_seconds() + _offset(node))
        case "Call":
            for argument in node.args:
                yield from _walk(argument, around)
        case "BinaryExpr":
            yield from _walk(node.lhs, around)
            yield from _walk(node.rhs, around)
        case "AggregateExpr" | "ParenExpr" | "UnaryExpr":
            yield from _walk(node.expr, around)


def _read(node: Any, reach: float) -> Read:
    matchers = [(one.name, str(one.op).rpartition(".")[2], one.value) for one in node.matchers.matchers]
    named = next((value for name, how, value in matchers if name == "__name__" and how == "Equal"), "")
    conditions = ", ".join(f"{name}{_OPERATORS[how]}{quote(value)}" for name, how, value in matchers)
    name = node.name or ""
    return Read(name or named, name + (f"{{{conditions}}}" if conditions else ""), reach + _offset(node))


def _offset(node: Any) -> float:
    return max(0.0, node.offset.total_seconds()) if node.offset is not None else 0.0


def selectors(groups: Iterable[FileGroup]) -> tuple[Read, ...]:
    """What the rules read and do not make themselves."""
    every = tuple(groups)
    made = ALERTS | {name_of(rule) for group in every for rule in group.group.records}
    found = {
        one.selector: one
        for group in every
        for line, rule in group.rules
        for one in rule_reads(group, line, rule)
        if one.metric not in made
    }
    return tuple(found[selector] for selector in sorted(found))


def lookback(groups: Iterable[FileGroup]) -> float:
    """How many seconds of the past decide over an alert: windows and offsets, those of what is recorded with them, and its own hold."""
    every = tuple(groups)
    recorded: dict[str, list[tuple[Read, ...]]] = {}
    for group in every:
        for line, rule in group.rules:
            if isinstance(rule, RecordingRule):
                recorded.setdefault(rule.record, []).append(rule_reads(group, line, rule))
    holds = max((rule.hold + rule.keep for group in every for rule in group.group.alerts), default=0.0)
    reach = (_reach(rule_reads(group, line, rule), recorded, ()) for group in every for line, rule in group.rules)
    return holds + max(reach, default=0.0)


def _reach(read: Iterable[Read], recorded: Mapping[str, list[tuple[Read, ...]]], within: tuple[str, ...]) -> float:
    """The longest way back; what reads itself is followed once."""
    return max(
        (
            one.reach
            + max(
                (_reach(deeper, recorded, (*within, one.metric)) for deeper in recorded.get(one.metric, ()) if one.metric not in within),
                default=0.0,
            )
            for one in read
        ),
        default=0.0,
    )
