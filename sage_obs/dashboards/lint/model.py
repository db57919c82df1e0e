"""A board as rules look at it, read from any file that calls itself a Grafana dashboard: what is odd in it is a finding, not a crash."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sage_obs.errors import ConfigError

_KINDS: Final = {"prometheus": "prometheus", "loki": "loki", "tempo": "tempo", "grafana-pyroscope-datasource": "pyroscope"}
_MAX_DEPTH: Final = 8
"""Rows hold panels, and nothing deeper is a board."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a panel lies, in units of Grafana's grid."""

    x: int
    y: int
    w: int
    h: int


@dataclass(frozen=True, slots=True)
class Target:
    """A query of a panel: its letter, its text, and whose language that is (`prometheus`, `loki`, … or "" for unknown)."""

    ref: str
    kind: str
    source: str
    expr: str
    exemplar: bool
    hidden: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel. `mapped` says whether it shows words for values; `steps` how many thresholds it has."""

    id: int | None
    type: str
    title: str
    description: str
    source: str
    unit: str
    mapped: bool
    steps: int
    place: Place | None
    library: bool
    targets: tuple[Target, ...]
    links: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of a board. `query` is PromQL's `label_values(…)` or the like, or the plugin of a data source."""

    name: str
    type: str
    query: str
    source: str
    refresh: int
    multi: bool
    all: bool
    all_value: str
    value: str


@dataclass(frozen=True, slots=True)
class Board:
    """A board."""

    uid: str
    title: str
    tags: tuple[str, ...]
    editable: bool
    schema: int
    inputs: bool
    variables: tuple[Variable, ...]
    annotations: tuple[Target, ...]
    panels: tuple[Panel, ...]
    links: tuple[str, ...]

    def variable(self, name: str) -> Variable | None:
        """The variable of this name."""
        return next((one for one in self.variables if one.name == name), None)


def parse(text: str, *, where: str) -> Board:
    """Read a file's text. Raises ConfigError, naming `where`, for what is no dashboard of the classic model."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{where} is not JSON ({exc}).", hint="Export the dashboard as JSON.") from exc
    if isinstance(data, dict) and isinstance(data.get("dashboard"), dict):
        data = data["dashboard"]  # as the HTTP API answers
    if not isinstance(data, dict) or not isinstance(data.get("panels"), list):
        raise ConfigError(
            f"{where} is not a Grafana dashboard of the classic model: it has no list of panels.",
            hint="Export it as JSON in the classic model, not as a resource of version 2.",
        )
    return read(data)


def read(data: Mapping[str, Any]) -> Board:
    """Read a dashboard that has been parsed already."""
    variables = tuple(_variables(_map(data.get("templating")).get("list")))
    sources = {one.name: one.query for one in variables if one.type == "datasource"}
    return Board(
        uid=_text(data.get("uid")),
        title=_text(data.get("title")),
        tags=tuple(_text(tag) for tag in _list(data.get("tags"))),
        editable=data.get("editable") is not False,
        schema=_int(data.get("schemaVersion")) or 0,
        inputs="__inputs" in data,
        variables=variables,
        annotations=tuple(
            _target({**one, "refId": _text(one.get("name"))}, {}, sources)
            for one in _maps(_map(data.get("annotations")).get("list"))
            if one.get("expr")
        ),
        panels=tuple(_panels(data.get("panels"), sources, depth=0)),
        links=tuple(_text(link.get("url")) for link in _maps(data.get("links"))),
    )


def _variables(listed: object) -> Iterator[Variable]:
    for one in _maps(listed):
        asked = one.get("query")
        current = _map(one.get("current")).get("value")
        yield Variable(
            name=_text(one.get("name")),
            type=_text(one.get("type")),
            query=_text(_map(asked).get("query") if isinstance(asked, dict) else asked) or _text(one.get("definition")),
            source=_source(one.get("datasource")),
            refresh=_int(one.get("refresh")) or 0,
            multi=one.get("multi") is True,
            all=one.get("includeAll") is True,
            all_value=_text(one.get("allValue")),
            value=_text(current[0] if isinstance(current, list) and current else current),
        )


def _panels(listed: object, sources: Mapping[str, str], *, depth: int) -> Iterator[Panel]:
    for one in _maps(listed):
        yield _panel(one, sources)
        if depth < _MAX_DEPTH:
            yield from _panels(one.get("panels"), sources, depth=depth + 1)


def _panel(one: Mapping[str, Any], sources: Mapping[str, str]) -> Panel:
    defaults = _map(_map(one.get("fieldConfig")).get("defaults"))
    thresholds = _map(defaults.get("thresholds"))
    links = [*_maps(one.get("links")), *_maps(defaults.get("links"))]
    return Panel(
        id=_int(one.get("id")),
        type=_text(one.get("type")),
        title=_text(one.get("title")),
        description=_text(one.get("description")),
        source=_source(one.get("datasource")),
        unit=_text(defaults.get("unit")) or _text(one.get("format")),
        mapped=bool(_list(defaults.get("mappings"))),
        steps=len(_list(thresholds.get("steps"))),
        place=_place(_map(one.get("gridPos"))),
        library="libraryPanel" in one,
        targets=tuple(_target(target, one, sources) for target in _maps(one.get("targets"))),
        links=tuple(_text(link.get("url")) for link in links),
    )


def _place(data: Mapping[str, Any]) -> Place | None:
    numbers = [_int(data.get(key)) for key in "xywh"]
    known = [number for number in numbers if number is not None]
    return Place(*known) if len(known) == len(numbers) else None


def _target(one: Mapping[str, Any], panel: Mapping[str, Any], sources: Mapping[str, str]) -> Target:
    own = one.get("datasource") or panel.get("datasource")
    return Target(
        ref=_text(one.get("refId")),
        kind=_kind(own, sources),
        source=_source(own),
        expr=_text(one.get("expr")),
        exemplar=one.get("exemplar") is True,
        hidden=one.get("hide") is True,
    )


def _kind(source: object, sources: Mapping[str, str]) -> str:
    """Whose query language it is: by the source's type, or by that of the variable that names it."""
    if isinstance(source, dict) and isinstance(source.get("type"), str) and source["type"] in _KINDS:
        return _KINDS[source["type"]]
    name = _source(source).strip("${}").partition(":")[0]
    return _KINDS.get(sources.get(name, ""), "")


def _source(source: object) -> str:
    return _text(source.get("uid")) if isinstance(source, dict) else _text(source)


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _maps(value: object) -> Iterator[Mapping[str, Any]]:
    return (one for one in _list(value) if isinstance(one, dict))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
