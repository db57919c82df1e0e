"""The kinds of panels the boards are made of, and how they are laid out."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafanalib.core import GridPos

from sage_obs.dashboards.grafana import (
    PROMETHEUS,
    AlertList,
    Heatmap,
    LineTarget,
    PromTarget,
    RowPanel,
    Stat,
    StateTimeline,
    Table,
    TimeSeries,
)

WIDTH: Final = 24
"""Columns of Grafana's grid."""
GREEN: Final = "green"
YELLOW: Final = "yellow"
RED: Final = "red"
PERCENT: Final = "percentunit"
SECONDS: Final = "s"
TIMES: Final = "suffix:x"

Steps = list[dict[str, Any]]


def steps(*limits: tuple[float, str], base: str = GREEN) -> Steps:
    """Threshold steps: the base colour, then each colour from its limit up."""
    return [{"color": base, "value": None}, *({"color": color, "value": value} for value, color in limits)]


@dataclass(frozen=True, slots=True)
class Query:
    """An expression and how its series are named, in Grafana's `{{label}}` notation."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels side by side under a heading, `height` grid units tall, each with its width in columns."""

    title: str
    height: int
    panels: tuple[tuple[int, Any], ...]


def _target(query: Query, **options: Any) -> PromTarget:
    return PromTarget(expr=query.expr, legendFormat=query.legend, refId="A", **options)


def _lines(queries: Sequence[Query]) -> list[LineTarget]:
    letters = zip(queries, string.ascii_uppercase, strict=False)
    return [LineTarget(expr=query.expr, legendFormat=query.legend, refId=letter) for query, letter in letters]


def _common(title: str, description: str) -> dict[str, Any]:
    return {"title": title, "description": description, "dataSource": PROMETHEUS}


def stat(title: str, description: str, query: Query, *, unit: str, thresholds: Steps) -> Stat:
    """The latest number, coloured by its thresholds, over its course."""
    return Stat(
        **_common(title, description),
        targets=[_target(query)],
        format=unit,
        thresholds=thresholds,
        color={"mode": "thresholds"},
        reduceCalc="lastNotNull",
        noValue="no data",
        extraJson={"options": {"percentChangeColorMode": "standard", "wideLayout": True}},
    )


def timeseries(
    title: str, description: str, queries: Sequence[Query], *, unit: str, thresholds: Steps | None = None, stacked: bool = False
) -> TimeSeries:
    """Lines over time; thresholds are drawn as dashed lines."""
    return TimeSeries(
        **_common(title, description),
        targets=_lines(queries),
        unit=unit,
        thresholds=thresholds or steps(),
        thresholdsStyleMode="dashed" if thresholds else "off",
        fillOpacity=20 if stacked else 5,
        stacking={"mode": "normal" if stacked else "none", "group": "A"},
        showPoints="never",
        legendCalcs=["lastNotNull", "max"],
        legendDisplayMode="table",
        tooltipMode="multi",
        tooltipSort="desc",
        extraJson={"fieldConfig": {"defaults": {"custom": {"scaleDistribution": {"type": "linear"}}, "min": 0}}, "options": _LEGEND},
    )


_LEGEND: Final = {"legend": {"showLegend": True}}


def states(title: str, description: str, query: Query, *, names: Sequence[tuple[float, str, str]]) -> StateTimeline:
    """One bar per series; `names` gives each value, what it means, and its colour."""
    options = {f"{value:g}": {"color": color, "index": n, "text": text} for n, (value, text, color) in enumerate(names)}
    return StateTimeline(
        **_common(title, description),
        targets=[_target(query)],
        thresholds=steps(*((value, color) for value, _, color in names[1:]), base=names[0][2]),
        mappings=[{"type": "value", "options": options}],
        extraJson={"fieldConfig": {"defaults": {"unit": "short"}}, "options": _LEGEND},
    )


def heatmap(title: str, description: str, query: Query) -> Heatmap:
    """A histogram in seconds over time, from increases by `le`."""
    return Heatmap(
        **_common(title, description),
        targets=[_target(query, format="heatmap")],
        thresholds=steps(),
        extraJson={
            "fieldConfig": {"defaults": {"unit": "short"}},
            "options": {
                "calculate": False,
                "cellGap": 1,
                "color": {"exponent": 0.5, "fill": "dark-orange", "mode": "scheme", "reverse": False, "scheme": "Oranges", "steps": 64},
                "exemplars": {"color": "rgba(255,0,255,0.7)"},
                "filterValues": {"le": 1e-9},
                "legend": {"show": True},
                "rowsFrame": {"layout": "auto"},
                "tooltip": {"mode": "single", "yHistogram": False},
                "yAxis": {"axisPlacement": "left", "reverse": False, "unit": SECONDS},
            },
        },
    )


def table(title: str, description: str, query: Query, *, columns: Sequence[str]) -> Table:
    """The labels of an instant query as columns, in this order."""
    organize = {
        "indexByName": {name: n for n, name in enumerate(columns)},
        "excludeByName": {"Time": True, "Value": True, "__name__": True},
    }
    return Table(
        **_common(title, description),
        targets=[_target(query, format="table", instant=True)],
        thresholds=steps(),
        unit="string",
        transformations=[{"id": "organize", "options": organize}],
        extraJson={"fieldConfig": {"defaults": {"custom": {"cellOptions": {"type": "auto"}}}}, "options": {"cellHeight": "sm"}},
    )


def alert_list(title: str, description: str, *, job: str) -> AlertList:
    """Prometheus's alerts that fire or are about to."""
    return AlertList(
        title=title,
        description=description,
        thresholds=steps(),
        extraJson={
            "fieldConfig": {"defaults": {"unit": "short"}, "overrides": []},
            "options": {
                "alertInstanceLabelFilter": "{" + job + "}",
                "datasource": PROMETHEUS["uid"],
                "groupMode": "default",
                "maxItems": 20,
                "sortOrder": 3,
                "stateFilter": {"error": True, "firing": True, "noData": False, "normal": False, "pending": True},
                "viewMode": "list",
            },
        },
    )


def laid_out(rows: Iterable[Row]) -> list[Any]:
    """The panels of all rows with their places and ids, from the top; an id says the row and the place in it."""
    placed: list[Any] = []
    y = 0
    for number, row in enumerate(rows, 1):
        placed.append(RowPanel(title=row.title, id=number * 100, gridPos=GridPos(h=1, w=WIDTH, x=0, y=y)))
        x = 0
        for place, (width, panel) in enumerate(row.panels, 1):
            panel.id, panel.gridPos = number * 100 + place, GridPos(h=row.height, w=width, x=x, y=y + 1)
            placed.append(panel)
            x += width
        y += row.height + 1
    return placed
