"""The ASGI middleware, outermost: everything that is measured of a request is measured here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, Final

import orjson

from sage_obs.conventions import HEALTH_PATHS, METRICS_PATH
from sage_obs.genai.requests import Invocation, Recorder, recorder
from sage_obs.health.board import board
from sage_obs.integrations.outcome import Ending, error_in_body, judge
from sage_obs.integrations.routes import UNMATCHED
from sage_obs.metrics.active import internal_error
from sage_obs.tracing.context import Parent, parse_traceparent, sane_request_id

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Operation = Callable[[Scope], str]

_MARK: Final = "sage_obs"
"""In a scope: this request is being measured already, by a middleware further out."""
_UNCOUNTED: Final = frozenset({*HEALTH_PATHS, METRICS_PATH})
_access: Final = logging.getLogger("sage_obs.access")


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


class Exchange:
    """One request and its answer, seen from outside the application."""

    __slots__ = (
        "_complete",
        "_gone",
        "_in_body",
        "_invocation",
        "_operation",
        "_protocol",
        "_receive",
        "_scope",
        "_send",
        "_status",
        "_streaming",
    )

    def __init__(self, invocation: Invocation, scope: Scope, receive: Receive, send: Send, operation: Operation, protocol: str) -> None:
        self._invocation = invocation
        self._scope = scope
        self._receive = receive
        self._send = send
        self._operation = operation
        self._protocol = protocol
        self._status = 0
        self._complete = False
        self._gone = False
        self._streaming = False
        self._in_body: bytes | None = None

    async def receive(self) -> Event:
        """What the server has for the application; a caller that leaves before the last byte is remembered."""
        event = await self._receive()
        if event["type"] == "http.disconnect" and not self._complete:
            self._gone = True
        return event

    async def send(self, event: Event) -> None:
        """What the application answers. The request counts as over when its last byte went out, whatever runs after it."""
        kind = event["type"]
        if kind == "http.response.start":
            self._status = event["status"]
            event = {**event, "headers": self._with_request_id(event.get("headers", ()))}
        last = kind == "http.response.body" and self._body(event)
        try:
            await self._send(event)
        except OSError:
            self._gone = not self._complete
            raise
        if last:
            self._complete = True
            self.finish()

    def _body(self, event: Event) -> bool:
        """Look at a piece of the body; whether it is the last one."""
        body, more = event.get("body", b""), event.get("more_body", False)
        if more:
            self._streaming = True
            if body:
                self._invocation.streaming()
        elif not self._streaming and self._status < HTTPStatus.BAD_REQUEST:
            self._in_body = body
        return not more

    def finish(self, raised: BaseException | None = None) -> None:
        """Count the request, once, and write its line in the access log."""
        if self._invocation.finished:
            return
        try:
            self._finish(raised)
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the request
            internal_error("asgi", exc)

    def leave(self, *, failed: bool = False) -> None:
        """The application has returned, or raised."""
        try:
            self._invocation.leave(failed=failed)
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the request
            internal_error("asgi", exc)

    def _finish(self, raised: BaseException | None) -> None:
        invocation = self._invocation
        declared = invocation.request.error_type
        in_body = error_in_body(self._in_body) if self._in_body and declared is None else None
        outcome, error_type = judge(Ending(self._status, self._complete, self._gone, raised, declared, in_body))
        operation = self._named()
        attributes = {
            "http.request.method": self._scope["method"],
            "url.path": self._scope["path"],
            "http.response.status_code": self._status,
        }
        invocation.finish(operation=operation, protocol=self._protocol, outcome=outcome, error_type=error_type, attributes=attributes)
        if _access.isEnabledFor(logging.INFO):
            self._log({"operation": operation, "outcome": outcome.value, "error_type": error_type.value if error_type else None})

    def _log(self, extra: dict[str, str | None]) -> None:
        scope, invocation = self._scope, self._invocation
        record = logging.LogRecord(
            _access.name, logging.INFO, __file__, 0, "%s %s %s", (scope["method"], scope["path"], self._status or "-"), None
        )
        record.__dict__.update(
            extra,
            request_id=invocation.request.request_id,
            trace_id=invocation.request.trace_id,
            span_id=invocation.request.span_id,
            duration_ms=round(invocation.seconds * 1000, 3),
        )
        _access.handle(record)

    def _named(self) -> str:
        try:
            return self._operation(self._scope)
        except Exception as exc:  # noqa: BLE001 - the function may be the application's
            internal_error("asgi", exc)
            return UNMATCHED

    def _with_request_id(self, headers: Any) -> list[tuple[bytes, bytes]]:
        lines = list(headers)
        if not any(name.lower() == b"x-request-id" for name, _ in lines):
            lines.append((b"x-request-id", self._invocation.request.request_id.encode("latin-1")))
        return lines


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
