"""One HTTP exchange: what goes through `receive` and `send`, and what it amounts to in the end."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, Final

from sage_obs.genai.requests import Invocation
from sage_obs.integrations.outcome import MAX_BODY_BYTES, Ending, error_in_body, judge
from sage_obs.integrations.routes import UNMATCHED
from sage_obs.metrics.active import internal_error

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Operation = Callable[[Scope], str]
Headers = list[tuple[bytes, bytes]]

_BODIES: Final = frozenset({"http.response.body", "http.response.zerocopysend"})
_access: Final = logging.getLogger("sage_obs.access")


class Exchange:
    """One request and its answer, seen from outside the application."""

    __slots__ = (
        "_collected",
        "_complete",
        "_gone",
        "_invocation",
        "_operation",
        "_protocol",
        "_receive",
        "_scope",
        "_send",
        "_sized",
        "_status",
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
        self._sized = False
        self._collected: bytearray | None = None

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
            headers = list(event.get("headers", ()))
            self._begin(event["status"], headers)
            event = {**event, "headers": self._with_request_id(headers)}
        last = kind == "http.response.pathsend" or (kind in _BODIES and self._body(event))
        try:
            await self._send(event)
        except OSError:
            self._gone = not self._complete
            raise
        if last:
            self._complete = True
            self.finish()

    def _begin(self, status: int, headers: Headers) -> None:
        """An answer of known length is no stream, in however many pieces a middleware sends it; only JSON can say that it is an error."""
        self._status = status
        said = {name.lower(): value for name, value in headers}
        self._sized = b"content-length" in said
        kind = said.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if status < HTTPStatus.BAD_REQUEST and kind.endswith((b"/json", b"+json")):
            self._collected = bytearray()

    def _body(self, event: Event) -> bool:
        """Look at a piece of the body; whether it is the last one."""
        body, more = event.get("body", b""), event.get("more_body", False)
        if more and body and not self._sized:
            self._invocation.streaming()
        if self._collected is not None:
            if len(self._collected) + len(body) <= MAX_BODY_BYTES:
                self._collected += body
            else:
                self._collected = None
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
        in_body = error_in_body(bytes(self._collected)) if self._collected and declared is None else None
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

    def _with_request_id(self, headers: Headers) -> Headers:
        if any(name.lower() == b"x-request-id" for name, _ in headers):
            return headers
        return [*headers, (b"x-request-id", self._invocation.request.request_id.encode("latin-1"))]
