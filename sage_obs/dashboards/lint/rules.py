"""Rules for anybody's boards: those of Grafana's dashboard-linter under their names, and some that come of panels found empty."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from sage_obs.dashboards.lint.model import Board, Panel, Place, Target
from sage_obs.dashboards.lint.promql import ADAPTIVE, Query, Selector, analyse, expand, is_rated, variables_in, wants_interval
from sage_obs.slo.names import known_names

Problems = Iterator[tuple[str, str]]
"""Pairs of a panel's title, "" for the board itself, and what is wrong."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its name, by which it can be excluded, and what finds its violations."""

    name: str
    check: Callable[[Board], Iterable[tuple[str, str]]]


_QUIET: Final = frozenset({"row", "text", "alertlist", "dashlist", "news", "welcome", "annolist", "gettingstarted"})
"""Panels without queries."""
_MEASURING: Final = frozenset(
    {"timeseries", "stat", "gauge", "bargauge", "singlestat", "graph", "heatmap", "table", "barchart", "histogram", "piechart"}
)
_COLUMNS: Final = 24
_SOURCES: Final = ("prometheus", "loki", "tempo", "pyroscope")
_LABEL_VALUES: Final = re.compile(r"\s*label_values\(\s*(.*?)\s*,\s*[^,()]+\)\s*", re.DOTALL)
_BUILT_IN: Final = re.compile(r"__.*|timeFilter|timezone")
_ON_CHANGE: Final = 2
_NO_INSTANCE: Final = frozenset({"ALERTS", "ALERTS_FOR_STATE"})
_STREAM: Final = re.compile(r"\{[^{}]*\}")
_LOG_RANGE: Final = re.compile(r"\[([^\]]+)\]")


def panels(board: Board) -> Iterator[Panel]:
    """Panels that show something of their own; a library panel is somebody else's."""
    return (panel for panel in board.panels if panel.type != "row" and not panel.library)


def targets(board: Board, kind: str) -> Iterator[tuple[Panel, Target]]:
    """The queries of panels in a language."""
    return ((panel, target) for panel in panels(board) for target in panel.targets if target.kind == kind and target.expr)


def expressions(board: Board) -> Iterator[tuple[str, str, Query]]:
    """The PromQL of panels: title, letter, and the expression where it can be read."""
    for panel, target in targets(board, "prometheus"):
        query = analyse(expand(target.expr, board))
        if not query.error:
            yield panel.title, target.ref, query


def selectors(board: Board) -> Iterator[tuple[str, str, Selector]]:
    """What the PromQL of panels selects."""
    return ((title, ref, one) for title, ref, query in expressions(board) for one in query.selectors)


def _used(board: Board) -> list[str]:
    return [kind for kind in _SOURCES if any(True for _ in targets(board, kind))]


def template_datasource(board: Board) -> Problems:
    """Readers choose the data source, so that a board works in more than one place."""
    plugins = {one.query for one in board.variables if one.type == "datasource"}
    for kind in _used(board):
        if not any(kind in plugin for plugin in plugins):
            yield "", f"has no variable for the data source of its {kind} queries"


def _template(name: str) -> Callable[[Board], Problems]:
    def check(board: Board) -> Problems:
        if "prometheus" not in _used(board):
            return
        variable = board.variable(name)
        if variable is None:
            yield "", f"has no variable {name}"
            return
        if variable.type != "query" or not variable.source.startswith("$"):
            yield "", f"has a variable {name} that is not asked of the chosen data source"
        if not (variable.multi and variable.all and variable.all_value == ".+"):
            yield "", f"has a variable {name} of which not several or all (.+) can be chosen"

    check.__doc__ = f"Readers choose by `{name}`: one, several or all."
    return check


def template_label_promql(board: Board) -> Problems:
    """Variables of labels ask with PromQL that can be read."""
    for one in board.variables:
        if one.type == "query" and (match := _LABEL_VALUES.fullmatch(one.query)):
            error = analyse(expand(match[1], board)).error
            if error:
                yield "", f"has a variable {one.name} whose query cannot be read: {error}"


def template_on_time_change_reload(board: Board) -> Problems:
    """Variables follow the time that is shown: what was there then, not what is there now."""
    for one in board.variables:
        if one.type == "query" and one.refresh != _ON_CHANGE:
            yield "", f"has a variable {one.name} that is not asked again when the time changes"


def panel_datasource(board: Board) -> Problems:
    """Panels and queries use the data source that the reader chose."""
    for panel in panels(board):
        for source in sorted({panel.source, *(target.source for target in panel.targets)} - {""}):
            if not source.startswith("$") and not source.startswith("-- "):
                yield panel.title, f"has a data source of its own ({source})"


def panel_title_description(board: Board) -> Problems:
    """Panels say what they are and what they show."""
    for panel in panels(board):
        for name in ("title", "description"):
            if not getattr(panel, name).strip() and panel.type != "text":
                yield panel.title or f"#{panel.id}", f"has no {name}"


def panel_units(board: Board) -> Problems:
    """Numbers have a unit, or words in their place."""
    for panel in panels(board):
        if panel.type in _MEASURING and not panel.unit and not panel.mapped:
            yield panel.title, "has no unit"


def panel_no_targets(board: Board) -> Problems:
    """Panels that can have queries have some."""
    for panel in panels(board):
        if panel.type not in _QUIET and not panel.targets:
            yield panel.title, "has no query"


def target_promql(board: Board) -> Problems:
    """PromQL can be read."""
    for panel, target in targets(board, "prometheus"):
        if error := analyse(expand(target.expr, board)).error:
            yield panel.title, f"has a query {target.ref} that cannot be read: {error}"


def target_rate_interval(board: Board) -> Problems:
    """Ranges of rates follow the scrape interval and the zoom, or a graph has gaps."""
    for title, ref, one in selectors(board):
        if wants_interval(one) and one.range != ADAPTIVE:
            yield title, f"has a fixed window for {one.name} in query {ref}, not $__rate_interval"


def _follows(name: str) -> Callable[[Board], Problems]:
    def check(board: Board) -> Problems:
        seen: set[tuple[str, str]] = set()
        for title, _, one in selectors(board):
            if (
                (title, one.name) not in seen and not _lacks(one.name, name) and name not in one.matchers.get(name, "")
            ):  # an expanded variable is its name
                seen.add((title, one.name))
                yield title, f"ignores the chosen {name} for {one.name}"

    check.__doc__ = f"Queries follow the chosen `{name}`."
    return check


def _lacks(series: str, label: str) -> bool:
    """Whether series of this name have no such label: recorded ones say in their name which they have."""
    if label != "instance":
        return False
    return series in _NO_INSTANCE or (":" in series and "instance" not in series.partition(":")[0].split("_"))


def target_counter_agg(board: Board) -> Problems:
    """Counters are looked at by how they rise."""
    for title, ref, one in selectors(board):
        if one.name.endswith("_total") and not is_rated(one):
            yield title, f"shows the counter {one.name} itself in query {ref}, not its rate"


def target_logql(board: Board) -> Problems:
    """LogQL selects streams, and its brackets match."""
    for panel, target in targets(board, "loki"):
        if not _STREAM.search(_outside_strings(target.expr)):
            yield panel.title, f"has a query {target.ref} that selects no streams"
        elif not _balanced(_outside_strings(target.expr)):
            yield panel.title, f"has a query {target.ref} whose brackets do not match"


def target_logql_auto(board: Board) -> Problems:
    """Ranges of LogQL follow the zoom."""
    for panel, target in targets(board, "loki"):
        for window in _LOG_RANGE.findall(_outside_strings(target.expr)):
            if window != "$__auto":
                yield panel.title, f"has the fixed window {window} in query {target.ref}, not $__auto"


def _outside_strings(text: str) -> str:
    return re.sub(r'"(?:[^"\\]|\\.)*"|`[^`]*`', '""', text)


def _balanced(text: str) -> bool:
    pairs, open_ = {")": "(", "]": "[", "}": "{"}, []
    for letter in text:
        if letter in "([{":
            open_.append(letter)
        elif letter in pairs and (not open_ or open_.pop() != pairs[letter]):
            return False
    return not open_


def uneditable(board: Board) -> Problems:
    """A board that comes from a file is not changed in Grafana, where the next export would undo it."""
    if board.editable:
        yield "", "can be edited in Grafana, where the next export would undo it"


def model(board: Board) -> Problems:
    """Boards have a uid that links can rely on, and need nobody to fill in data sources as they are loaded."""
    if not board.uid:
        yield "", "has no uid, so that links to it break with every import"
    if board.inputs:
        yield "", "asks for its data sources on import, which file provisioning cannot answer"


def unique(board: Board) -> Problems:
    """No two panels have the same title or id."""
    for title, times in Counter(panel.title for panel in panels(board)).items():
        if times > 1 and title:
            yield title, f"has a title that {times} panels have"
    for number, times in Counter(panel.id for panel in board.panels if panel.id is not None).items():
        if times > 1:
            yield "", f"has {times} panels with the id {number}"


def layout(board: Board) -> Problems:
    """Panels lie within the grid and not on one another."""
    placed = [(panel.title, panel.place) for panel in board.panels if panel.place is not None]
    for title, place in placed:
        if place.x < 0 or place.x + place.w > _COLUMNS:
            yield title, f"reaches beyond column {_COLUMNS}"
    for (title, one), (other_title, other) in itertools.combinations(placed, 2):
        if _overlap(one, other):
            yield title, f"lies on {other_title!r}"


def _overlap(one: Place, other: Place) -> bool:
    beside = one.x + one.w <= other.x or other.x + other.w <= one.x
    above = one.y + one.h <= other.y or other.y + other.h <= one.y
    return not (beside or above)


def variables(board: Board) -> Problems:
    """Queries mention variables that there are."""
    there = {one.name for one in board.variables}
    for panel in panels(board):
        for target in panel.targets:
            for name in sorted(variables_in(target.expr) - there):
                if not _BUILT_IN.fullmatch(name):
                    yield panel.title, f"mentions ${name} in query {target.ref}, which is no variable of the board"


def quantiles(board: Board) -> Problems:
    """A quantile needs the bounds of the buckets, or it is NaN."""
    for title, ref, query in expressions(board):
        if query.without_le:
            yield title, f"takes a quantile without the label le in query {ref}"


def recorded(board: Board) -> Problems:
    """A recorded series has the labels that its name says, and a matcher of another one selects nothing."""
    for title, _, one in selectors(board):
        if _lacks(one.name, "instance") and one.name not in _NO_INSTANCE and "instance" in one.matchers:
            yield title, f"selects an instance of {one.name}, whose name says that it has none"


def series(board: Board) -> Problems:
    """What calls itself ours is exposed or recorded by us, so that no panel is empty for a wrong name."""
    for title, ref, one in selectors(board):
        if (one.name.startswith("sage_") or ":sage_" in one.name) and one.name not in known_names():
            yield title, f"reads {one.name} in query {ref}, which nothing exposes"


def exemplars(board: Board) -> Problems:
    """Only the buckets of a histogram as scraped have exemplars."""
    for panel, target in targets(board, "prometheus"):
        if target.exemplar and "_bucket" not in target.expr:
            yield panel.title, f"asks for exemplars in query {target.ref}, which has no buckets as scraped"


RULES: Final = (
    Rule("template-datasource-rule", template_datasource),
    Rule("template-job-rule", _template("job")),
    Rule("template-instance-rule", _template("instance")),
    Rule("template-label-promql-rule", template_label_promql),
    Rule("template-on-time-change-reload-rule", template_on_time_change_reload),
    Rule("panel-datasource-rule", panel_datasource),
    Rule("panel-title-description-rule", panel_title_description),
    Rule("panel-units-rule", panel_units),
    Rule("panel-no-targets-rule", panel_no_targets),
    Rule("target-promql-rule", target_promql),
    Rule("target-rate-interval-rule", target_rate_interval),
    Rule("target-job-rule", _follows("job")),
    Rule("target-instance-rule", _follows("instance")),
    Rule("target-counter-agg-rule", target_counter_agg),
    Rule("target-logql-rule", target_logql),
    Rule("target-logql-auto-rule", target_logql_auto),
    Rule("uneditable-dashboard-rule", uneditable),
    Rule("model-rule", model),
    Rule("unique-rule", unique),
    Rule("layout-rule", layout),
    Rule("variables-rule", variables),
    Rule("quantile-rule", quantiles),
    Rule("recorded-series-rule", recorded),
    Rule("known-series-rule", series),
    Rule("exemplar-rule", exemplars),
)
"""The first seventeen are dashboard-linter's, the others ours."""
