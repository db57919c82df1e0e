"""One HTTP exchange: what goes through `receive` and `send`, and what it amounts to in the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol, Self

from sage_obs.access import served
from sage_obs.conventions import ErrorType, Outcome
from sage_obs.genai.requests import NOTHING, Invocation
from sage_obs.integrations.outcome import MAX_BODY_BYTES, Ending, error_in_body, judge
from sage_obs.integrations.routes import UNMATCHED
from sage_obs.metrics.active import internal_error
from sage_obs.tracing.active import Attributes
from sage_obs.tracing.context import Request, ambient_var, request_var

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Operation = Callable[[Scope], str]

_BODIES: Final = frozenset({"http.response.body", "http.response.zerocopysend"})
_ERROR_STATUS: Final = 400
"""HTTP statuses from here on are errors; a plain number, as it is compared twice in every request."""
_REQUEST_ID: Final = b"x-request-id"
_SUCCESS: Final = (Outcome.SUCCESS, None)


class Kind(Protocol):
    """What is known of a request before it comes."""

    @property
    def protocol(self) -> str:
        """The value of the protocol label."""

    @property
    def operation(self) -> Operation:
        """The function that names it once it has been served."""

    @property
    def component(self) -> str:
        """Under which name errors of ours are counted."""


class Plain(NamedTuple):
    """A kind by its parts."""

    operation: Operation
    protocol: str = "http"
    component: str = "asgi"


class Apart:
    """Keeps a finished request, and whom it was for, out of the next one.

    A server that pipelines starts a request in the context in which its predecessor's last byte went out. What was there comes back
    afterwards for a background task that calls an application in its own process; after an exception the failed request's ids stay.
    """

    __slots__ = ("_ambient", "_request")

    def __init__(self, finished: Request) -> None:
        self._request = finished
        self._ambient = ambient_var.get()
        request_var.set(None)
        ambient_var.set(None)

    @classmethod
    def of(cls, around: Request) -> Self | None:
        """What to put back after the next request; None where there is nothing to keep out of it."""
        return cls(around) if around.finished else None

    def back(self) -> None:
        """Put back what was there."""
        request_var.set(self._request)
        ambient_var.set(self._ambient)


class Exchange:
    """One request and its answer, seen from outside the application."""

    __slots__ = ("_apart", "_collected", "_complete", "_gone", "_invocation", "_kind", "_receive", "_scope", "_send", "_sized", "_status")

    def __init__(self, invocation: Invocation, kind: Kind, scope: Scope, receive: Receive, send: Send, apart: Apart | None = None) -> None:
        self._apart = apart
        self._invocation = invocation
        self._kind = kind
        self._scope = scope
        self._receive = receive
        self._send = send
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
        kind, last = event["type"], False
        if kind == "http.response.start":
            event = self._begin(event)
        elif kind in _BODIES:
            last = self._body(event.get("body", b""), more=event.get("more_body", False))
        elif kind == "http.response.pathsend":
            last = True
        try:
            await self._send(event)
        except OSError:
            self._gone = not self._complete
            raise
        if last:
            self._complete = True
            self.finish()

    def _begin(self, event: Event) -> Event:
        """The start of the answer, with the request's id.

        An answer of known length is no stream, in however many pieces a middleware sends it; only JSON can say that it is an error.
        """
        status = self._status = event["status"]
        headers, named = list(event.get("headers", ())), False
        for name, value in headers:
            lower = name.lower()
            if lower == b"content-length":
                self._sized = True
            elif lower == b"content-type":
                if status < _ERROR_STATUS and _is_json(bytes(value)):
                    self._collected = bytearray()
            elif lower == _REQUEST_ID:
                named = True
        if not named:
            headers.append((_REQUEST_ID, self._invocation.request.request_id.encode("latin-1")))
        return {**event, "headers": headers}

    def _body(self, body: bytes, *, more: bool) -> bool:
        """Look at a piece of the body; whether it is the last one."""
        if more and body and not self._sized:
            self._invocation.streaming()
        if self._collected is not None:
            if len(self._collected) + len(body) <= MAX_BODY_BYTES:
                self._collected += body
            else:
                self._collected = None
        return not more

    def end(self, raised: BaseException | None = None) -> None:
        """The application has returned, or raised."""
        if not self._invocation.request.finished:
            self.finish(raised)
        self.leave(failed=raised is not None)
        if self._apart is not None and raised is None:
            self._apart.back()

    def finish(self, raised: BaseException | None = None) -> None:
        """Count the request, once, and write its line in the access log."""
        invocation, scope, status = self._invocation, self._scope, self._status
        request = invocation.request
        if request.finished:
            return
        try:
            outcome, error_type = self._judged(raised)
            operation, protocol = self._named(), self._kind.protocol
            attributes = _attributes(scope, status) if request.sampled else NOTHING
            invocation.finish(operation=operation, protocol=protocol, outcome=outcome, error_type=error_type, attributes=attributes)
            served(request, invocation.seconds, (scope["method"], scope["path"], status, operation, outcome, error_type))
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the request
            internal_error(self._kind.component, exc)

    def leave(self, *, failed: bool = False) -> None:
        """The application rests, or is done."""
        try:
            self._invocation.leave(failed=failed)
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the request
            internal_error(self._kind.component, exc)

    def _judged(self, raised: BaseException | None) -> tuple[Outcome, ErrorType | None]:
        declared, collected, status = self._invocation.request.error_type, self._collected, self._status
        in_body = error_in_body(bytes(collected)) if collected and declared is None else None
        if self._complete and declared is None and in_body is None and status < _ERROR_STATUS:
            return _SUCCESS  # what `judge` would say, and nearly always does
        return judge(Ending(status, self._complete, self._gone, raised, declared, in_body))

    def _named(self) -> str:
        try:
            return self._kind.operation(self._scope)
        except Exception as exc:  # noqa: BLE001 - the function may be the application's
            internal_error(self._kind.component, exc)
            return UNMATCHED


@lru_cache(maxsize=256)
def _is_json(content_type: bytes) -> bool:
    """Whether an answer of this type is JSON of some kind (RFC 6839, 3.1)."""
    return content_type.partition(b";")[0].strip().lower().endswith((b"/json", b"+json"))


def _attributes(scope: Scope, status: int) -> Attributes:
    return {"http.request.method": scope["method"], "url.path": scope["path"], "http.response.status_code": status}
