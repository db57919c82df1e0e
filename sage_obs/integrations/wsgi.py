"""The WSGI middleware, outermost: it measures what the ASGI middleware measures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any, Final

import orjson

from sage_obs.conventions import HEALTH_PATHS, METRICS_PATH
from sage_obs.genai.requests import Recorder, recorder
from sage_obs.health.board import board
from sage_obs.integrations.routes import NOTED, named
from sage_obs.integrations.wsgi_call import Call, Environ, Headers, StartResponse
from sage_obs.metrics.active import internal_error
from sage_obs.tracing.context import ambient_var, parse_traceparent, request_var, sane_request_id, under_way

App = Callable[[Environ, StartResponse], Iterable[bytes]]
Operation = Callable[[Environ], str]

_UNCOUNTED: Final = frozenset({*HEALTH_PATHS, METRICS_PATH})
_BRIDGES: Final = frozenset({"a2wsgi.wsgi", "asgiref.wsgi", "starlette.middleware.wsgi"})
"""Where the `start_response` of a WSGI application inside an ASGI one comes from."""


class Noted:
    """Where a framework's integration notes the route. It is shared by copies that middlewares make of the environ."""

    __slots__ = ("template",)

    def __init__(self) -> None:
        self.template = ""


def note(environ: Environ, template: str) -> None:
    """Note the route a request takes; nothing happens where it is not measured."""
    if (found := environ.get(NOTED)) is not None:
        found.template = template


def noted(environ: Environ) -> str:
    """The operation of a request whose framework notes the route it takes, else `unmatched`."""
    return named(environ["REQUEST_METHOD"], environ[NOTED].template)


class WsgiMiddleware:
    """A WSGI application around another one. Switched off, it only passes on.

    `operation` names a request after the application has served it; its values are label values, so there must be few of them.
    """

    def __init__(self, app: App, *, operation: Operation = noted, protocol: str = "http") -> None:
        self._app = app
        self._operation = operation
        self._protocol = protocol

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request. One for a websocket, which some applications speak on the server's socket, is left alone."""
        active = recorder()
        upgrading = environ.get("HTTP_UPGRADE", "").lower() == "websocket"
        if active is None or upgrading or NOTED in environ or _inside_asgi(start_response):
            return self._app(environ, start_response)
        environ[NOTED] = Noted()
        board().started()
        forget_the_finished()
        path = _path(environ)
        if path in _UNCOUNTED:
            return self._uncounted(path, environ, start_response)
        call = self._begin(active, path, environ, start_response)
        return self._app(environ, start_response) if call is None else call.serve(self._app)

    def _begin(self, active: Recorder, path: str, environ: Environ, start_response: StartResponse) -> Call | None:
        try:
            invocation = active.begin(
                name=environ["REQUEST_METHOD"],
                request_id=sane_request_id(environ.get("HTTP_X_REQUEST_ID", "")),
                parent=parse_traceparent(environ.get("HTTP_TRACEPARENT", "")),
            )
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the request
            internal_error("wsgi", exc)
            return None
        return Call(invocation, environ, path, start_response, operation=self._operation, protocol=self._protocol)

    def _uncounted(self, path: str, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Probes and scrapes on the application's own port: it goes first, and only a probe it does not know is answered here."""
        probe, method = HEALTH_PATHS.get(path), environ["REQUEST_METHOD"]
        if probe is None or method not in {"GET", "HEAD"} or not board().served:
            return self._app(environ, start_response)
        held = _HoldNotFound(start_response)
        result: Any = self._app(environ, held)
        if not held.called:
            result = _Begun(result)
        if not held.holding:
            return result  # type: ignore[no-any-return]
        if hasattr(result, "close"):
            result.close()
        answer = board().answer(probe)
        return _json(start_response, answer.status, answer.body, head=method == "HEAD")


def _inside_asgi(start_response: StartResponse) -> bool:
    """Whether an ASGI middleware further out measures the request already."""
    return under_way() is not None and type(getattr(start_response, "__self__", None)).__module__ in _BRIDGES


def forget_the_finished() -> None:
    """A thread keeps its context: a failed request's ids, which stayed for the server's traceback, end with the next request."""
    request = request_var.get()
    if request is not None and request.finished:
        request_var.set(None)
        ambient_var.set(None)


def _path(environ: Environ) -> str:
    """The whole path; an environ holds bytes as latin-1 (PEP 3333)."""
    return str(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1", "replace").decode("utf-8", "replace")


class _HoldNotFound:
    """A `start_response` that keeps a 404 back, to be answered better."""

    def __init__(self, start_response: StartResponse) -> None:
        self._start_response = start_response
        self.called = False
        self.holding = False

    def __call__(self, status: str, headers: Headers, *exc_info: Any) -> Callable[[bytes], object]:
        """Pass the start on unless it is a 404's."""
        self.called = True
        self.holding = status.startswith(str(HTTPStatus.NOT_FOUND.value))
        return _swallow if self.holding else self._start_response(status, headers, *exc_info)


def _swallow(data: bytes) -> None:
    """The `write` of an answer that nobody gets."""
    del data


class _Begun:
    """The body of an application that starts its answer with its first piece, which is taken here."""

    def __init__(self, result: Iterable[bytes]) -> None:
        self._result = result
        self._pieces = iter(result)
        self._first = next(self._pieces, None)

    def __iter__(self) -> Iterator[bytes]:
        if self._first is not None:
            yield self._first
        yield from self._pieces

    def close(self) -> None:
        """Close the application's body."""
        if hasattr(self._result, "close"):
            self._result.close()


def _json(start_response: StartResponse, status: int, document: object, *, head: bool) -> list[bytes]:
    body = orjson.dumps(document)
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
    start_response(f"{status} {HTTPStatus(status).phrase}", headers)
    return [b"" if head else body]
