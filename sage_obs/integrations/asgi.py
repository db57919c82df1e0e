"""The ASGI middleware, outermost: everything that is measured of a request is measured here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Final

import orjson

from sage_obs.conventions import HEALTH_PATHS, METRICS_PATH
from sage_obs.genai.requests import recorder
from sage_obs.health.board import board
from sage_obs.integrations.exchange import Apart, Event, Exchange, Kind, Operation, Plain, Receive, Scope, Send
from sage_obs.integrations.routes import noted
from sage_obs.metrics.active import internal_error
from sage_obs.tracing.context import Parent, parse_traceparent, request_var, sane_request_id

App = Callable[[Scope, Receive, Send], Awaitable[None]]

_MARK: Final = "sage_obs"
"""In a scope: this request is being measured already, by a middleware further out."""
_UNCOUNTED: Final = frozenset({*HEALTH_PATHS, METRICS_PATH})


class RequestMiddleware:
    """An ASGI application around another one. Switched off, it only passes on.

    `operation` names a request after the application has served it; its values are label values, so there must be few of them.
    """

    def __init__(self, app: App, *, operation: Operation = noted, protocol: str = "http") -> None:
        self._app = app
        self._kind = Plain(operation, protocol)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        exchange = begin(self._kind, scope, receive, send)
        if exchange is None:
            await unmeasured(self._app, scope, receive, send)
            return
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except BaseException as exc:
            exchange.end(exc)
            raise
        exchange.end()


def begin(kind: Kind, scope: Scope, receive: Receive, send: Send) -> Exchange | None:
    """The exchange of a scope that is a request which nobody measures yet; None for everything else.

    Who calls this serves the scope with the exchange's `receive` and `send` and says when it has ended. It is written out where that
    happens, as each coroutine in between costs every request.
    """
    active = recorder()
    if active is None or scope["type"] != "http" or _MARK in scope or scope["path"] in _UNCOUNTED:
        return None
    try:
        scope[_MARK] = True
        if not (health := board()).serving:
            health.seen_here()
        around = request_var.get()
        apart = None if around is None else Apart.of(around)
        request_id, parent = _identity(scope["headers"])
        return Exchange(active.begin(name=scope["method"], request_id=request_id, parent=parent), kind, scope, receive, send, apart)
    except Exception as exc:  # noqa: BLE001 - the telemetry must not break the request
        internal_error("asgi", exc)
        return None


async def unmeasured(app: App, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a scope that is not measured: the layer is off or knows of it already, or it is a probe, a lifespan or a websocket."""
    if recorder() is None or _MARK in scope:
        await app(scope, receive, send)
    elif scope["type"] == "lifespan":
        await app(scope, receive, _reporting_startup(send))
    elif scope["type"] == "http" and scope["path"] in _UNCOUNTED:
        scope[_MARK] = True
        board().seen_here()
        around = request_var.get()
        apart = None if around is None else Apart.of(around)
        await _uncounted(app, scope, receive, send)
        if apart is not None:
            apart.back()
    else:
        await app(scope, receive, send)


async def _uncounted(app: App, scope: Scope, receive: Receive, send: Send) -> None:
    """Probes and scrapes on the application's own port: it goes first, and only a probe it does not know is answered here."""
    probe = HEALTH_PATHS.get(scope["path"])
    if probe is None or scope["method"] not in {"GET", "HEAD"} or not board().served:
        await app(scope, receive, send)
        return
    held = _HoldNotFound(send)
    await app(scope, receive, held.send)
    if held.holding:
        answer = await board().answer_async(probe)
        await _send_json(send, answer.status, answer.body, head=scope["method"] == "HEAD")


def _identity(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, Parent | None]:
    """The caller's request id, "" where there is no usable one, and its span."""
    request_id, parent = "", None
    for name, value in headers:
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
            board().seen_here()
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
