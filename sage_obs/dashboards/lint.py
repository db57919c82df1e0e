"""Rules about boards, applied to the JSON that ships. A finding names the board and the panel."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sage_obs.slo.names import known_names, metrics_in

_DATASOURCE: Final = "${prometheus_datasource}"
_SELECTOR: Final = re.compile(r"([\w:]+)\{([^}]*)\}")
_WINDOW: Final = re.compile(r"\[([^\]]+)\]")
_WITHOUT_QUERIES: Final = frozenset({"row", "alertlist"})
_COLUMNS: Final = 24

Board = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """A defect of a board; `panel` is "" for the board itself."""

    board: str
    panel: str
    message: str

    def __str__(self) -> str:
        return f"{self.board}{f', panel {self.panel!r}' if self.panel else ''}: {self.message}"


def lint(board: Board) -> tuple[Finding, ...]:
    """Every finding, in the order of the rules."""
    return tuple(Finding(board["uid"], panel, message) for check in _CHECKS for panel, message in check(board))


def _panels(board: Board) -> Iterator[Mapping[str, Any]]:
    return (panel for panel in board["panels"] if panel["type"] != "row")


def _targets(board: Board) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((panel["title"], target) for panel in _panels(board) for target in panel.get("targets", ()))


def is_provisioned(board: Board) -> Iterator[tuple[str, str]]:
    """A board has a stable uid, is changed in code only, and is of the model that Grafana 10 to 12 read."""
    if not board["uid"].startswith("sage-"):
        yield "", "has a uid that does not begin with sage-"
    if board["editable"]:
        yield "", "can be edited in Grafana, where the next export would undo it"
    if board["schemaVersion"] != 39 or "__inputs" in board:  # noqa: PLR2004 - Grafana's number for the model
        yield "", "is not of schema 39 for file provisioning"


def explains_itself(board: Board) -> Iterator[tuple[str, str]]:
    """Every panel says what it shows, in which unit, and what is good."""
    for panel in _panels(board):
        defaults = panel.get("fieldConfig", {}).get("defaults", {})
        for name, value in (
            ("title", panel.get("title")),
            ("description", panel.get("description")),
            ("unit", defaults.get("unit")),
            ("thresholds", defaults.get("thresholds", {}).get("steps")),
        ):
            if not value:
                yield panel.get("title", "?"), f"has no {name}"


def has_one_name(board: Board) -> Iterator[tuple[str, str]]:
    """No two panels have the same title or id."""
    panels = list(_panels(board))
    for title, times in Counter(panel["title"] for panel in panels).items():
        if times > 1:
            yield title, f"has a title that {times} panels have"
    for number, times in Counter(panel["id"] for panel in board["panels"]).items():
        if times > 1:
            yield "", f"has {times} panels with the id {number}"


def fits(board: Board) -> Iterator[tuple[str, str]]:
    """Panels lie within the grid and not on one another."""
    for panel in board["panels"]:
        place = panel["gridPos"]
        if place["x"] + place["w"] > _COLUMNS:
            yield panel["title"], f"reaches beyond column {_COLUMNS}"
    for one, other in itertools.combinations(board["panels"], 2):
        if _overlap(one["gridPos"], other["gridPos"]):
            yield one["title"], f"lies on {other['title']!r}"


def _overlap(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
    above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    return not (beside or above)


def asks_the_chosen_source(board: Board) -> Iterator[tuple[str, str]]:
    """Panels and queries use the data source that the reader chose, and every panel that can have queries has some."""
    for panel in _panels(board):
        if panel["type"] not in _WITHOUT_QUERIES and not panel.get("targets"):
            yield panel["title"], "has no query"
    for title, target in _targets(board):
        if target["datasource"].get("uid") != _DATASOURCE:
            yield title, f"has query {target['refId']} with a data source of its own"


def reads_known_series(board: Board) -> Iterator[tuple[str, str]]:
    """Queries read what the agents expose or what is recorded, so that no panel is empty for a wrong name."""
    for title, target in _targets(board):
        for name in sorted(metrics_in(target["expr"]) - known_names()):
            yield title, f"reads {name} in query {target['refId']}, which nothing exposes"


def respects_the_choice(board: Board) -> Iterator[tuple[str, str]]:
    """Selectors follow the chosen job, and the chosen instance where the series has one."""
    for title, target in _targets(board):
        for name, matchers in _SELECTOR.findall(target["expr"]):
            without_instance = name == "ALERTS" or name.startswith(("job:", "job_version:"))
            if 'job=~"$job"' not in matchers:
                yield title, f"ignores the chosen job for {name}"
            if ("instance=" in matchers) is without_instance:
                yield title, f"{'selects an instance of' if without_instance else 'ignores the chosen instance for'} {name}"


def adapts_its_windows(board: Board) -> Iterator[tuple[str, str]]:
    """Ranges follow the scrape interval and the zoom, or a graph has gaps."""
    for title, target in _targets(board):
        for window in _WINDOW.findall(target["expr"]):
            if window != "$__rate_interval":
                yield title, f"has the fixed window {window} in query {target['refId']}"


def asks_for_exemplars_where_they_are(board: Board) -> Iterator[tuple[str, str]]:
    """Only the buckets of a histogram as scraped have exemplars, and only graphs show them."""
    for panel in _panels(board):
        for target in panel.get("targets", ()):
            has = panel["type"] == "timeseries" and "_bucket{" in target["expr"]
            if target["exemplar"] is not has:
                yield panel["title"], f"{'does not ask' if has else 'asks'} for exemplars in query {target['refId']}"


_CHECKS: Final[tuple[Callable[[Board], Iterable[tuple[str, str]]], ...]] = (
    is_provisioned,
    explains_itself,
    has_one_name,
    fits,
    asks_the_chosen_source,
    reads_known_series,
    respects_the_choice,
    adapts_its_windows,
    asks_for_exemplars_where_they_are,
)
