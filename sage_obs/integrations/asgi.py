"""The ASGI middleware, outermost: everything that is measured of a request is measured here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from types import TracebackType
from typing import Final

import orjson

from sage_obs.conventions import HEALTH_PATHS, METRICS_PATH
from sage_obs.genai.requests import Recorder, recorder
from sage_obs.health.board import board
from sage_obs.integrations.exchange import Event, Exchange, Operation, Receive, Scope, Send
from sage_obs.integrations.routes import UNMATCHED
from sage_obs.metrics.active import internal_error
from sage_obs.tracing.context import Parent, ambient_var, parse_traceparent, request_var, sane_request_id

App = Callable[[Scope, Receive, Send], Awaitable[None]]

_MARK: Final = "sage_obs"
"""In a scope: this request is being measured already, by a middleware further out."""
_UNCOUNTED: Final = frozenset({*HEALTH_PATHS, METRICS_PATH})


def unmatched(scope: Scope) -> str:
    """The operation of an application that has no routes to ask."""
    del scope
    return UNMATCHED


class RequestMiddleware:
    """An ASGI application around another one. Switched off, it only passes on.

    `operation` names a request after the application has served it; its values are label values, so there must be few of them.
    """

    def __init__(self, app: App, *, operation: Operation = unmatched, protocol: str = "http") -> None:
        self._app = app
        self._operation = operation
        self._protocol = protocol

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        active = recorder()
        if active is None or _MARK in scope:
            await self._app(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, _reporting_startup(send))
        elif scope["type"] == "http":
            scope[_MARK] = True
            board().seen(asyncio.get_running_loop())
            with _Apart():
                await self._serve(active, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve(self, active: Recorder, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in _UNCOUNTED:
            await self._uncounted(scope, receive, send)
            return
        exchange = self._begin(active, scope, receive, send)
        if exchange is None:
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except BaseException as exc:
            exchange.finish(raised=exc)
            exchange.leave(failed=True)
            raise
        exchange.finish()
        exchange.leave()

    def _begin(self, active: Recorder, scope: Scope, receive: Receive, send: Send) -> Exchange | None:
        try:
            request_id, parent = _identity(scope)
            invocation = active.begin(name=scope["method"], request_id=request_id, parent=parent)
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the request
            internal_error("asgi", exc)
            return None
        return Exchange(invocation, scope, receive, send, self._operation, self._protocol)

    async def _uncounted(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Probes and scrapes on the application's own port: it goes first, and only a probe it does not know is answered here."""
        probe = HEALTH_PATHS.get(scope["path"])
        if probe is None or scope["method"] not in {"GET", "HEAD"} or not board().served:
            await self._app(scope, receive, send)
            return
        held = _HoldNotFound(send)
        await self._app(scope, receive, held.send)
        if held.holding:
            answer = await board().answer_async(probe)
            await _send_json(send, answer.status, answer.body, head=scope["method"] == "HEAD")


class _Apart:
    """Keeps a finished request, and whom it was for, out of the next one.

    A server that pipelines starts a request in the context in which its predecessor's last byte went out. What was there comes back
    afterwards for a background task that calls an application in its own process; after an exception the failed request's ids stay.
    """

    __slots__ = ("_ambient", "_request")

    def __enter__(self) -> None:
        self._request, self._ambient = request_var.get(), ambient_var.get()
        if self._stale():
            request_var.set(None)
            ambient_var.set(None)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and self._stale():
            request_var.set(self._request)
            ambient_var.set(self._ambient)

    def _stale(self) -> bool:
        return self._request is not None and self._request.finished


def _identity(scope: Scope) -> tuple[str, Parent | None]:
    """The caller's request id, "" where there is no usable one, and its span."""
    request_id, parent = "", None
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            request_id = sane_request_id(value.decode("latin-1"))
        elif name == b"traceparent":
            parent = parse_traceparent(value.decode("latin-1"))
    return request_id, parent


def _reporting_startup(send: Send) -> Send:
    """Startup is complete when the application's lifespan says so."""
    board().expect_app()

    async def reporting(event: Event) -> None:
        if event["type"] == "lifespan.startup.complete":
            board().seen(asyncio.get_running_loop())
        await send(event)

    return reporting


class _HoldNotFound:
    """A `send` that keeps a 404 back, to be answered better."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.holding = False

    async def send(self, event: Event) -> None:
        """Pass the event on unless it belongs to a 404."""
        if event["type"] == "http.response.start":
            self.holding = event["status"] == HTTPStatus.NOT_FOUND
        if not self.holding:
            await self._send(event)


async def _send_json(send: Send, status: int, document: object, *, head: bool) -> None:
    body = orjson.dumps(document)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})
