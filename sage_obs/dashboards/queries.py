"""The Prometheus queries of a rendered board, with Grafana's variables replaced, so that each can be sent to Prometheus."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

VARIABLES: Final = {
    "__rate_interval": "1m",
    "__interval": "15s",
    "__interval_ms": "15000",
    "__range": "1h",
    "__range_s": "3600",
    **dict.fromkeys(("job", "instance", "agent_id", "model", "version"), ".+"),
}
"""What Grafana would put in for "All" on a board of one hour, scraped every 15 s."""
_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))")
_LABEL_VALUES: Final = re.compile(r"label_values\((.*),\s*\w+\)")


@dataclass(frozen=True, slots=True)
class Query:
    """One query: the panel, annotation or variable it belongs to, its letter there, and PromQL."""

    panel: str
    ref: str
    expr: str


def queries(board: Mapping[str, Any], *, variables: Mapping[str, str] | None = None) -> list[Query]:
    """Every query of the board in order: variables, annotations, panels.

    `variables` adds to `VARIABLES` or replaces some of them. Raises KeyError for a variable that has no value.
    """
    values = {**VARIABLES, **(variables or {})}
    return [Query(found.panel, found.ref, substitute(found.expr, values)) for found in _found(board)]


def substitute(expr: str, values: Mapping[str, str]) -> str:
    """Replace `$name`, `${name}` and `${name:format}`."""
    return _VARIABLE.sub(lambda match: values[match[1] or match[2]], expr)


def _found(board: Mapping[str, Any]) -> Iterator[Query]:
    for variable in board["templating"]["list"]:
        if variable["type"] == "query" and (match := _LABEL_VALUES.fullmatch(variable["definition"])):
            yield Query(f"variable {variable['name']}", "", match[1])
    for annotation in board["annotations"]["list"]:
        if "expr" in annotation:
            yield Query(f"annotation {annotation['name']}", "", annotation["expr"])
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            if target["datasource"]["type"] == "prometheus":
                yield Query(panel["title"], target["refId"], target["expr"])
