"""The kinds of panels the boards are made of, and how they are laid out."""

from __future__ import annotations

import json
import string
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafanalib.core import GridPos

from sage_obs.dashboards.grafana import (
    LOKI,
    PROMETHEUS,
    PYROSCOPE,
    TEMPO,
    AlertList,
    FlameGraph,
    Heatmap,
    LineTarget,
    Logs,
    LokiTarget,
    PromTarget,
    PyroscopeTarget,
    RowPanel,
    Stat,
    StateTimeline,
    Table,
    Text,
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
COUNT: Final = "short"
BYTES: Final = "bytes"
PER_SECOND: Final = "reqps"
DOLLARS: Final = "currencyUSD"

Steps = list[dict[str, Any]]
Link = dict[str, Any]


def steps(*limits: tuple[float, str], base: str = GREEN) -> Steps:
    """Threshold steps: the base colour, then each colour from its limit up."""
    return [{"color": base, "value": None}, *({"color": color, "value": value} for value, color in limits)]


@dataclass(frozen=True, slots=True)
class Query:
    """An expression and how its series are named, in Grafana's `{{label}}` notation; `dashed` is for what is compared with."""

    expr: str
    legend: str = ""
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table of numbers: its heading, a query of one number for each row, and how to write and colour it."""

    title: str
    expr: str
    unit: str
    thresholds: Steps | None = None


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
        extraJson={"options": {"wideLayout": True}},
    )


def timeseries(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str,
    thresholds: Steps | None = None,
    stacked: bool = False,
    links: Sequence[Link] = (),
    signed: bool = False,
) -> TimeSeries:
    """Lines over time from 0 up, unless they are `signed`; thresholds are drawn as dashed lines."""
    floor = {} if signed else {"min": 0}
    return TimeSeries(
        **_common(title, description),
        links=list(links),
        overrides=[_dashed(letter) for query, letter in zip(queries, string.ascii_uppercase, strict=False) if query.dashed],
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
        extraJson={"fieldConfig": {"defaults": {"custom": {"scaleDistribution": {"type": "linear"}}, **floor}}, "options": _LEGEND},
    )


_LEGEND: Final = {"legend": {"showLegend": True}}


def _dashed(letter: str) -> dict[str, Any]:
    """The lines of a query that others are compared with."""
    style = {"dash": [6, 6], "fill": "dash"}
    return {
        "matcher": {"id": "byFrameRefID", "options": letter},
        "properties": [
            {"id": "custom.lineStyle", "value": style},
            {"id": "custom.fillOpacity", "value": 0},
            {"id": "custom.stacking", "value": {"group": "A", "mode": "none"}},
        ],
    }


def states(title: str, description: str, query: Query, *, names: Sequence[tuple[float, str, str]]) -> StateTimeline:
    """One bar per series; `names` gives each value, what it means, and its colour."""
    options = {f"{value:g}": {"color": color, "index": n, "text": text} for n, (value, text, color) in enumerate(names)}
    return StateTimeline(
        **_common(title, description),
        targets=[_target(query)],
        thresholds=steps(*((value, color) for value, _, color in names[1:]), base=names[0][2]),
        mappings=[{"type": "value", "options": options}],
        extraJson={"fieldConfig": {"defaults": {"unit": "short"}}, "options": _STATES},
    )


_STATES: Final = {"legend": {"calcs": [], "showLegend": True}, "tooltip": {"sort": "none"}}


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


def numbers(title: str, description: str, columns: Sequence[Column], *, rows: Sequence[str], link: str = "", height: str = "sm") -> Table:
    """A row for each combination of the labels `rows` with a number for each column; `link` leads from a row's first label to a page."""
    names = {f"Value #{letter}": column for letter, column in zip(string.ascii_uppercase, columns, strict=False)}
    overrides = [_number(name, column) for name, column in names.items()]
    if link:
        opens = [{"title": "Open", "url": link}]
        overrides.append({"matcher": {"id": "byName", "options": rows[0]}, "properties": [{"id": "links", "value": opens}]})
    organize = {
        "indexByName": {name: n for n, name in enumerate((*rows, *names))},
        "excludeByName": {"Time": True},
        "renameByName": {name: column.title for name, column in names.items()},
    }
    return Table(
        **_common(title, description),
        targets=[
            PromTarget(expr=column.expr, refId=letter, format="table", instant=True)
            for letter, column in zip(string.ascii_uppercase, columns, strict=False)
        ],
        thresholds=steps(),
        unit="string",
        overrides=overrides,
        transformations=[{"id": "merge", "options": {}}, {"id": "organize", "options": organize}],
        extraJson={"fieldConfig": {"defaults": {"custom": {"cellOptions": {"type": "auto"}}}}, "options": {"cellHeight": height}},
    )


def _number(name: str, column: Column) -> dict[str, Any]:
    properties: list[dict[str, Any]] = [{"id": "unit", "value": column.unit}, {"id": "decimals", "value": 2}]
    if column.thresholds:
        properties.append({"id": "thresholds", "value": {"mode": "absolute", "steps": column.thresholds}})
        properties.append({"id": "custom.cellOptions", "value": {"type": "color-text"}})
    return {"matcher": {"id": "byName", "options": name}, "properties": properties}


def logs(title: str, description: str, expr: str, *, links: Sequence[Link] = ()) -> Logs:
    """Log lines, newest first."""
    return Logs(
        title=title,
        description=description,
        dataSource=LOKI,
        links=list(links),
        targets=[LokiTarget(expr=expr, refId="A")],
        extraJson={
            "options": {
                "dedupStrategy": "none",
                "enableLogDetails": True,
                "prettifyLogMessage": False,
                "showCommonLabels": False,
                "showLabels": False,
                "showTime": True,
                "sortOrder": "Descending",
                "wrapLogMessage": True,
            }
        },
    )


def flame_graph(title: str, description: str, profile: str) -> FlameGraph:
    """What a type of profile says about the chosen jobs."""
    return FlameGraph(
        title=title,
        description=description,
        dataSource=PYROSCOPE,
        targets=[PyroscopeTarget(expr='{service_name=~"$job"}', format=profile, refId="A")],
    )


def text(title: str, description: str, markdown: str) -> Text:
    """A few words."""
    options = {"code": {"language": "plaintext", "showLineNumbers": False, "showMiniMap": False}, "content": markdown, "mode": "markdown"}
    return Text(title=title, description=description, extraJson={"options": options})


def traces(title: str, condition: str) -> Link:
    """A link of a panel to the traces that meet a condition of TraceQL, within the board's time."""
    query = {"refId": "A", "datasource": TEMPO, "queryType": "traceql", "query": "{ " + condition + " }"}
    times = {"from": "${__from}", "to": "${__to}"}
    panes = {"sage": {"datasource": TEMPO["uid"], "queries": [query], "range": times}}
    # Grafana replaces variables in a link before a browser sees it, so their marks stay as they are
    encoded = urllib.parse.quote(json.dumps(panes, separators=(",", ":")), safe="${}:,")
    url = f"/explore?schemaVersion=1&panes={encoded}&orgId=1"
    plain = {"asDropdown": False, "icon": "external link", "includeVars": False, "keepTime": False, "tags": [], "tooltip": title}
    return {**plain, "targetBlank": True, "title": title, "type": "link", "url": url}


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
