"""What a PromQL expression of a panel reads and how, by its syntax tree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from sage_obs.dashboards.lint.model import Board

_VARIABLE: Final = re.compile(r"\$\{(\w+)(?:[:.][^}]*)?\}|\$(\w+)|\[\[(\w+)(?::\w+)?\]\]")
_DURATIONS: Final = frozenset({"__rate_interval", "__interval", "__range", "__auto"})
_NUMBERS: Final = frozenset({"__range_s", "__range_ms", "__interval_ms", "__from", "__to"})
_RATES: Final = frozenset({"rate", "irate", "increase"})
_COUNTED: Final = _RATES | frozenset({"changes", "resets", "absent", "absent_over_time", "count_over_time", "last_over_time", "timestamp"})
ADAPTIVE: Final = 5 * 60.0 + 7.0
"""Seconds that stand for `$__rate_interval`, and nothing that people write."""


@dataclass(frozen=True, slots=True)
class Selector:
    """Series that an expression selects: their name, the matchers of labels, the range in seconds (None: none).

    `within` names the functions around it, the innermost first.
    """

    name: str
    matchers: Mapping[str, str]
    range: float | None
    within: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """An expression: what is wrong with its syntax ("" if nothing), what it selects, and its quantiles that lost their buckets."""

    error: str
    selectors: tuple[Selector, ...] = ()
    without_le: int = 0


def variables_in(text: str) -> frozenset[str]:
    """The names of the variables that a text mentions."""
    return frozenset(match[1] or match[2] or match[3] for match in _VARIABLE.finditer(text))


def expand(expr: str, board: Board) -> str:
    """The expression with something in place of each variable that keeps it an expression, and `$__rate_interval` recognisable."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2] or match[3]
        if name in _DURATIONS:
            return f"{ADAPTIVE:g}s"
        if name in _NUMBERS:
            return "1"
        variable = board.variable(name)
        if variable is not None and variable.type == "interval":
            return "5m"
        return variable.value if variable is not None and _plain(variable.value) else name

    return _VARIABLE.sub(value, expr)


def _plain(value: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?|\d+(ms|[smhdwy])", value) is not None


@lru_cache(maxsize=4096)
def analyse(expr: str) -> Query:
    """Read an expression without variables."""
    import promql_parser

    try:
        tree = promql_parser.parse(expr)
    except ValueError as exc:
        return Query(str(exc))
    except BaseException as exc:  # the parser is native code, and its panics are no Exceptions
        if isinstance(exc, (KeyboardInterrupt, SystemExit)):
            raise
        return Query(f"the parser gave up ({exc})")
    return Query("", tuple(_selectors(tree, ())), sum(_quantiles_without_le(tree)))


def _selectors(node: Any, within: tuple[str, ...]) -> Iterator[Selector]:
    match type(node).__name__:
        case "VectorSelector":
            yield _selector(node, None, within)
        case "MatrixSelector":
            yield _selector(node.vector_selector, node.range.total_seconds(), within)
        case _:
            for child, around in _children(node, within):
                yield from _selectors(child, around)


def _selector(node: Any, seconds: float | None, within: tuple[str, ...]) -> Selector:
    matchers = {one.name: one.value for one in node.matchers.matchers}
    name = node.name or matchers.get("__name__", "")
    return Selector(name, matchers, seconds, within)


def _children(node: Any, within: tuple[str, ...]) -> list[tuple[Any, tuple[str, ...]]]:
    match type(node).__name__:
        case "Call":
            return [(one, (node.func.name, *within)) for one in node.args]
        case "BinaryExpr":
            return [(node.lhs, within), (node.rhs, within)]
        case "AggregateExpr":
            return [(node.expr, within), *([(node.param, within)] if node.param is not None else [])]
        case "SubqueryExpr":
            return [(node.expr, ("", *within))]
        case "UnaryExpr" | "ParenExpr":
            return [(node.expr, within)]
        case _:
            return []


def _quantiles_without_le(node: Any) -> Iterator[int]:
    if type(node).__name__ == "Call" and node.func.name == "histogram_quantile":
        yield int(_drops_le(node.args[1]))
    for child, _ in _children(node, ()):
        yield from _quantiles_without_le(child)


def _drops_le(node: Any) -> bool:
    """Whether the aggregation next to a quantile has lost the buckets' bounds."""
    while type(node).__name__ == "ParenExpr":
        node = node.expr
    if type(node).__name__ != "AggregateExpr":
        return False
    if node.modifier is None:
        return True
    named = "le" in node.modifier.labels
    return named if "Without" in str(node.modifier.type) else not named


def is_rated(selector: Selector) -> bool:
    """Whether a counter is looked at by how it rises."""
    return bool(_COUNTED.intersection(selector.within))


def wants_interval(selector: Selector) -> bool:
    """Whether the selector's range should follow the zoom: that of a rate."""
    return selector.range is not None and bool(selector.within) and selector.within[0] in _RATES
