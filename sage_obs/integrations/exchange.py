"""One HTTP exchange: what goes through `receive` and `send`, and what it amounts to in the end."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, Final

from sage_obs.genai.requests import Invocation
from sage_obs.integrations.outcome import Ending, error_in_body, judge
from sage_obs.integrations.routes import UNMATCHED
from sage_obs.metrics.active import internal_error

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Operation = Callable[[Scope], str]

_access: Final = logging.getLogger("sage_obs.access")


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
