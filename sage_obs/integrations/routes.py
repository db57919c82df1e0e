"""The operation of a request: the template of the route that matched, never a path a caller made up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPMethod
from typing import Any, Final, Protocol
from weakref import ReferenceType, ref

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
    def routes(self) -> Sequence[Any]:
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


class _Routes:
    """The routes of one application, as they were when they were read."""

    __slots__ = ("_names", "_templates", "app", "count")

    def __init__(self, app: ReferenceType[Routed], routes: Sequence[Any]) -> None:
        self.app = app
        self.count = len(routes)
        self._templates: dict[int, list[str]] = {}
        self._names: dict[tuple[int, str], str] = {}
        for endpoint, template in templates(routes):
            self._templates.setdefault(endpoint, []).append(template)

    def name(self, endpoint: object, scope: Mapping[str, Any]) -> str:
        """What a request is called, "" where the endpoint is not known or no template of it fits."""
        found = self._names.get((id(endpoint), scope["method"]))
        return self._find(id(endpoint), scope) if found is None else found

    def _find(self, endpoint: int, scope: Mapping[str, Any]) -> str:
        method, templates_ = scope["method"], self._templates.get(endpoint, [])
        if method not in _METHODS:
            return UNMATCHED
        if len(templates_) == 1:
            name = self._names[endpoint, method] = f"{method} {_plain(templates_[0])}"
            return name
        path = _below_root(scope)
        template = next((one for one in templates_ if fits(one, path)), "")
        return f"{method} {_plain(template)}" if template else ""


class RouteTable:
    """Templates by application. It keeps no application alive.

    One is read again when an endpoint is met that is not known, and when it has got another route, which may be one more of an endpoint
    that is. Applications are found by identity, which is all a request has time for.
    """

    def __init__(self) -> None:
        self._tables: dict[int, _Routes] = {}

    def operation(self, app: Routed, scope: Mapping[str, Any]) -> str:
        """`GET /hello/{name}` for the request the application has served, or `unmatched`."""
        endpoint = scope.get("endpoint")
        if endpoint is None:
            return UNMATCHED
        table = self._tables.get(id(app))
        if table is not None and table.app() is app and table.count == len(app.routes) and (name := table.name(endpoint, scope)):
            return name
        return self._read(app).name(endpoint, scope) or UNMATCHED

    def _read(self, app: Routed) -> _Routes:
        place = id(app)
        gone = ref(app, lambda reference: self._forget(place, reference))
        table = self._tables[place] = _Routes(gone, app.routes)
        return table

    def _forget(self, place: int, reference: ReferenceType[Routed]) -> None:
        if (table := self._tables.get(place)) is not None and table.app is reference:
            del self._tables[place]


def _below_root(scope: Mapping[str, Any]) -> str:
    """The path as the application's routes have it, without the prefix that a proxy in front of it has. Mounts extend `root_path`."""
    root = scope.get("app_root_path", scope.get("root_path", ""))
    path: str = scope["path"]
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _plain(template: str) -> str:
    """The template without Starlette's convertors: `{name:int}` is `{name}`."""
    return "/".join(f"{part.partition(':')[0]}}}" if part.startswith("{") and ":" in part else part for part in template.split("/"))
