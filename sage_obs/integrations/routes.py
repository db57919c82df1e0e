"""The operation of a request: the template of the route that matched, never a path a caller made up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from http import HTTPMethod
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

UNMATCHED: Final = "unmatched"
_METHODS: Final = frozenset(HTTPMethod)

NOTED: Final = "sage_obs.route"
"""In a scope or environ: the template that a framework's integration has noted for the request."""


def named(method: str, template: str) -> str:
    """`GET /hello/{name}`, or `unmatched` where there is no template or the method is one that a caller made up."""
    return f"{method} {template}" if template and method in _METHODS else UNMATCHED


def noted(scope: Mapping[str, Any]) -> str:
    """The operation of a request whose framework notes the route it takes."""
    return named(scope["method"], scope.get(NOTED, ""))


class Routed(Protocol):
    """An application with Starlette's list of routes."""

    @property
    def routes(self) -> Iterable[Any]:
        """Its routes, each with a `path`, and `endpoint` or `routes` of its own."""


def templates(routes: Iterable[Any], prefix: str = "") -> Iterator[tuple[int, str]]:
    """(identity of the endpoint, template) of every route, those of mounted applications and of FastAPI's included routers too."""
    for route in routes:
        if (included := getattr(route, "effective_route_contexts", None)) is not None:
            yield from templates((getattr(one, "starlette_route", None) or one for one in included()), prefix)
            continue
        path = prefix + getattr(route, "path", "")
        inner = getattr(route, "routes", None)
        endpoint = getattr(route, "endpoint", getattr(route, "app", None))
        if inner:
            yield from templates(inner, path)
        elif endpoint is not None:
            yield id(endpoint), path if hasattr(route, "endpoint") else path + "/{path}"


def fits(template: str, path: str) -> bool:
    """Whether a path can have come from a template; `{…}` stands for a segment, at the end for the rest."""
    wanted, given = template.split("/"), path.split("/")
    if len(wanted) > len(given) or (len(wanted) < len(given) and not wanted[-1].endswith(":path}")):
        return False
    return all(part == value or part.startswith("{") for part, value in zip(wanted, given, strict=False))


class RouteTable:
    """Templates by application. It keeps no application alive, and is read again when an endpoint is met that it does not know."""

    def __init__(self) -> None:
        self._tables: WeakKeyDictionary[Routed, dict[int, list[str]]] = WeakKeyDictionary()

    def operation(self, app: Routed, scope: Mapping[str, Any]) -> str:
        """`GET /hello/{name}` for the request the application has served, or `unmatched`."""
        endpoint, method = scope.get("endpoint"), scope["method"]
        if endpoint is None:
            return UNMATCHED
        found = self._tables.get(app, {}).get(id(endpoint)) or self._read(app).get(id(endpoint), [])
        template = found[0] if len(found) == 1 else next((one for one in found if fits(one, scope["path"])), "")
        return named(method, _plain(template))

    def _read(self, app: Routed) -> dict[int, list[str]]:
        table: dict[int, list[str]] = {}
        for endpoint, template in templates(app.routes):
            table.setdefault(endpoint, []).append(template)
        self._tables[app] = table
        return table


def _plain(template: str) -> str:
    """The template without Starlette's convertors: `{name:int}` is `{name}`."""
    return "/".join(f"{part.partition(':')[0]}}}" if part.startswith("{") and ":" in part else part for part in template.split("/"))
