"""Grafanalib's classes, writing what Grafana 10 to 12 read.

Grafanalib 0.7.1 writes a model ten years old: empty and Angular-era fields that override newer defaults. Each class here keeps its
attributes and corrects its JSON. The classic dashboard model with schema 39 is what file provisioning accepts in all three.
"""

from __future__ import annotations

from typing import Any, Final

from grafanalib import core

from sage_obs.conventions import TRACED
from sage_obs.render import MARK

SCHEMA_VERSION: Final = 39
PLUGIN_VERSION: Final = "10.4.0"
"""The oldest panel model written here; Grafana would take a panel without one for a pre-7 panel and migrate it."""
DATASOURCE: Final = "prometheus_datasource"


def source(kind: str) -> dict[str, str]:
    """The data source of a kind that the reader chose."""
    return {"type": SOURCE_TYPES[kind], "uid": "${" + f"{kind}_datasource" + "}"}


SOURCE_TYPES: Final = {"prometheus": "prometheus", "loki": "loki", "tempo": "tempo", "pyroscope": "grafana-pyroscope-datasource"}
"""Grafana's names for the plugins, by ours; the variable of each is `NAME_datasource`."""
PROMETHEUS: Final = source("prometheus")
LOKI: Final = source("loki")
TEMPO: Final = source("tempo")
PYROSCOPE: Final = source("pyroscope")
ALL: Final = {"selected": True, "text": ["All"], "value": ["$__all"]}

_LEGACY: Final = frozenset(
    {"cacheTimeout", "editable", "error", "height", "hideTimeOverride", "maxDataPoints", "maxPerRow", "minSpan", "repeatDirection", "span"}
)
_MAY_BE_EMPTY: Final = frozenset(
    {"tags", "groupBy", "overrides", "calcs", "panels", "custom", "defaults", "current", "options", "timepicker"}
)


def prune(data: Any) -> Any:
    """Leave out what says nothing, which newer Grafanas take for a choice. A threshold's first value stays null."""
    if isinstance(data, list):
        return [prune(item) for item in data]
    if hasattr(data, "to_json_data"):
        return prune(data.to_json_data())
    if not isinstance(data, dict):
        return data
    if data.keys() == {"color", "value"}:
        return data
    pruned = {key: prune(value) for key, value in data.items()}
    return {key: value for key, value in pruned.items() if value not in (None, "", [], {}) or key in _MAY_BE_EMPTY}


class _Modern:
    """Left of a grafanalib panel class: its JSON without what Grafana no longer has."""

    def panel_json(self, overrides: dict[str, Any]) -> dict[str, Any]:
        """The panel as Grafana reads it."""
        data = super().panel_json(overrides)  # type: ignore[misc]  # the panel class stands to the right
        kept = prune({key: value for key, value in data.items() if key not in _LEGACY})
        defaults = kept.get("fieldConfig", {}).get("defaults", {})
        if "steps" not in defaults.get("thresholds", {"steps": None}):
            del defaults["thresholds"]
        return {**kept, "pluginVersion": PLUGIN_VERSION}


class TimeSeries(_Modern, core.TimeSeries):  # type: ignore[misc]  # grafanalib has no types
    """Lines over time."""


class Stat(_Modern, core.Stat):  # type: ignore[misc]
    """One number."""


class StateTimeline(_Modern, core.StateTimeline):  # type: ignore[misc]
    """States over time."""


class Table(_Modern, core.Table):  # type: ignore[misc]
    """Rows of labels and values."""

    def panel_json(self, overrides: dict[str, Any]) -> dict[str, Any]:
        """Without the Angular table's fields."""
        data = super().panel_json({key: value for key, value in overrides.items() if key in {"type", "fieldConfig", "options"}})
        del data["fieldConfig"]["defaults"]["custom"]["displayMode"]
        return data


class Heatmap(_Modern, core.Panel):  # type: ignore[misc]
    """A histogram over time; grafanalib's own is the Angular one."""

    def to_json_data(self) -> dict[str, Any]:
        """The panel as Grafana reads it."""
        return self.panel_json({"type": "heatmap", "fieldConfig": {"overrides": []}})


class AlertList(_Modern, core.Panel):  # type: ignore[misc]
    """Alerts and their states; grafanalib's own has the options of Grafana 7."""

    def to_json_data(self) -> dict[str, Any]:
        """The panel as Grafana reads it."""
        return self.panel_json({"type": "alertlist"})


class Logs(_Modern, core.Panel):  # type: ignore[misc]
    """Log lines; grafanalib's own has the options of Grafana 7."""

    def to_json_data(self) -> dict[str, Any]:
        """The panel as Grafana reads it."""
        return self.panel_json({"type": "logs", "fieldConfig": {"defaults": {}, "overrides": []}})


class FlameGraph(_Modern, core.Panel):  # type: ignore[misc]
    """Where time or memory goes; grafanalib has none."""

    def to_json_data(self) -> dict[str, Any]:
        """The panel as Grafana reads it."""
        return self.panel_json({"type": "flamegraph", "fieldConfig": {"defaults": {}, "overrides": []}, "options": {}})


class Text(_Modern, core.Panel):  # type: ignore[misc]
    """Markdown; grafanalib's own has the fields of Grafana 7."""

    def to_json_data(self) -> dict[str, Any]:
        """The panel as Grafana reads it."""
        return self.panel_json({"type": "text", "fieldConfig": {"defaults": {}, "overrides": []}})


class RowPanel(core.RowPanel):  # type: ignore[misc]
    """A heading."""

    def to_json_data(self) -> dict[str, Any]:
        """A row has nothing else."""
        return {"type": "row", "title": self.title, "id": self.id, "gridPos": self.gridPos, "collapsed": False, "panels": []}


class PromTarget(core.Target):  # type: ignore[misc]
    """A Prometheus query."""

    def to_json_data(self) -> dict[str, Any]:
        """The query as Grafana reads it."""
        return {
            "datasource": PROMETHEUS,
            "editorMode": "code",
            "exemplar": False,
            "expr": self.expr,
            "format": self.format,
            "instant": self.instant,
            "legendFormat": self.legendFormat or "__auto",
            "range": not self.instant,
            "refId": self.refId,
        }


class LineTarget(PromTarget):
    """The query of a graph, with exemplars where there are any."""

    def to_json_data(self) -> dict[str, Any]:
        """The query as Grafana reads it."""
        return {**super().to_json_data(), "exemplar": has_exemplars(self.expr)}


def has_exemplars(expr: str) -> bool:
    """Whether an expression reads buckets that carry the ids of traces, at the time that is shown."""
    return any(f"{metric.name}_bucket{{" in expr for metric in TRACED) and " offset " not in expr


class LokiTarget(core.Target):  # type: ignore[misc]
    """A query of log lines."""

    def to_json_data(self) -> dict[str, Any]:
        """The query as Grafana reads it."""
        return {"datasource": LOKI, "editorMode": "code", "expr": self.expr, "queryType": "range", "refId": self.refId}


class PyroscopeTarget(core.Target):  # type: ignore[misc]
    """A query of profiles: `expr` selects series, `format` is the profile's type."""

    def to_json_data(self) -> dict[str, Any]:
        """The query as Grafana reads it."""
        return {
            "datasource": PYROSCOPE,
            "groupBy": [],
            "includeExemplars": False,
            "labelSelector": self.expr,
            "profileTypeId": self.format,
            "queryType": "profile",
            "refId": self.refId,
        }


class DataSourceVariable(core.Template):  # type: ignore[misc]
    """Which Prometheus, Loki, Tempo or Pyroscope the board asks."""

    def to_json_data(self) -> dict[str, Any]:
        """The variable as Grafana reads it."""
        return {
            "type": "datasource",
            "name": self.name,
            "label": self.label,
            "query": self.query,
            "refresh": 1,
        }


class QueryVariable(core.Template):  # type: ignore[misc]
    """A choice of label values, several at once or all."""

    def to_json_data(self) -> dict[str, Any]:
        """The variable as Grafana reads it."""
        return {
            "type": "query",
            "name": self.name,
            "label": self.label,
            "datasource": PROMETHEUS,
            "definition": self.query,
            "query": {"query": self.query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
            "includeAll": True,
            "multi": True,
            "allValue": ".+",
            "current": ALL,
            "options": [],
            "refresh": 2,
            "sort": 1,
        }


class ConstantVariable(core.Template):  # type: ignore[misc]
    """A value that links need and nobody chooses."""

    def to_json_data(self) -> dict[str, Any]:
        """The variable as Grafana reads it."""
        value = {"selected": True, "text": self.query, "value": self.query}
        return {"type": "constant", "name": self.name, "label": self.label, "query": self.query, "hide": 2, "current": value}


class Link:
    """A link of a board; grafanalib's own has no place for a tooltip and writes empty fields."""

    def __init__(self, title: str, *, url: str = "", tags: tuple[str, ...] = (), tooltip: str = "") -> None:
        self._data = {
            "asDropdown": bool(tags),
            "icon": "external link" if tags else "doc",
            "includeVars": bool(tags),
            "keepTime": bool(tags),
            "tags": list(tags),
            "targetBlank": not tags,
            "title": title,
            "tooltip": tooltip or title,
            "type": "dashboards" if tags else "link",
            "url": url,
        }

    def to_json_data(self) -> dict[str, Any]:
        """The link as Grafana reads it."""
        return self._data


class Dashboard(core.Dashboard):  # type: ignore[misc]
    """A board of the classic model."""

    def to_json_data(self) -> dict[str, Any]:
        """The board as Grafana reads it."""
        return {
            "annotations": self.annotations,
            "description": f"{self.description} {MARK}: change the code, not this file.",
            "editable": False,
            "fiscalYearStartMonth": 0,
            "graphTooltip": core.GRAPH_TOOLTIP_MODE_SHARED_CROSSHAIR,
            "links": self.links,
            "panels": self.panels,
            "refresh": self.refresh,
            "schemaVersion": SCHEMA_VERSION,
            "tags": self.tags,
            "templating": self.templating,
            "time": self.time,
            "timepicker": {},
            "timezone": "browser",
            "title": self.title,
            "uid": self.uid,
            "weekStart": "",
        }
