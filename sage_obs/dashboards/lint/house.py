"""Rules for the boards that ship with us, beside those for anybody's."""

from __future__ import annotations

from typing import Final

from sage_obs.conventions import TRACED
from sage_obs.dashboards.lint.model import Board
from sage_obs.dashboards.lint.rules import Problems, Rule, panels, selectors, targets
from sage_obs.slo.names import known_names

_SCHEMA: Final = 39
_BOARD: Final = "/d/"
_UNCOLOURED: Final = frozenset({"text", "logs", "flamegraph", "alertlist"})


def provisioned(board: Board) -> Problems:
    """A board has our prefix and tag, and is of the model that Grafana 10 to 12 read."""
    if not board.uid.startswith("sage-"):
        yield "", "has a uid that does not begin with sage-"
    if "sage-obs" not in board.tags:
        yield "", "has not the tag by which boards find each other"
    if board.schema != _SCHEMA:
        yield "", f"is not of schema {_SCHEMA} for file provisioning"


def thresholds(board: Board) -> Problems:
    """Every panel says what is good."""
    for panel in panels(board):
        if panel.type not in _UNCOLOURED and not panel.steps:
            yield panel.title, "has no thresholds"


def all_known(board: Board) -> Problems:
    """Everything is exposed by us, by Prometheus, or recorded."""
    for title, ref, one in selectors(board):
        if one.name not in known_names():
            yield title, f"reads {one.name} in query {ref}, which nothing exposes"


def exemplars_shown(board: Board) -> Problems:
    """Graphs ask for exemplars, which lead to traces, where there are any, and only there."""
    for panel, target in targets(board, "prometheus"):
        traced = any(f"{metric.name}_bucket{{" in target.expr for metric in TRACED) and " offset " not in target.expr
        if panel.type == "timeseries" and traced is not target.exemplar:
            yield panel.title, f"{'does not ask' if traced else 'asks'} for exemplars in query {target.ref}"


def reads_at_all(board: Board) -> Problems:
    """Every panel that measures has a query that reads series, not a number alone."""
    read = {title for title, _, _ in selectors(board)}
    for panel, _ in targets(board, "prometheus"):
        if panel.title not in read:
            yield panel.title, "reads no series"


HOUSE: Final = (
    Rule("house-model-rule", provisioned),
    Rule("house-thresholds-rule", thresholds),
    Rule("house-series-rule", all_known),
    Rule("house-exemplar-rule", exemplars_shown),
    Rule("house-reads-rule", reads_at_all),
)
"""What we ask of ourselves alone."""
