"""One RPC on its way through a gRPC server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextvars import copy_context
from typing import Any, Final

from sage_obs.access import served
from sage_obs.conventions import ErrorType, Outcome
from sage_obs.genai.requests import NOTHING, Invocation, Recorder
from sage_obs.integrations.grpc_status import Ending, judge, name_of
from sage_obs.integrations.routes import UNMATCHED
from sage_obs.integrations.wsgi import forget_the_finished
from sage_obs.metrics.active import internal_error
from sage_obs.tracing.active import Attributes
from sage_obs.tracing.context import parse_traceparent, sane_request_id

PROTOCOL: Final = "grpc"
_REQUEST_ID: Final = "x-request-id"
_TRACEPARENT: Final = "traceparent"
_ON_THE_WAY: Final = 0.1
"""In seconds. The caller's deadline passes before the server's, by as long as the RPC took to get here, and the caller then cancels."""
REFUSED: Final = Outcome.CLIENT_ERROR, ErrorType.INVALID_REQUEST
FULL: Final = Outcome.REJECTED, ErrorType.QUEUE_FULL


class Call:
    """An RPC from when it came to its last message; a pool may have let it wait before its handler is called.

    It is used by the thread or task that handles the RPC and, where a stream's caller leaves, by the one that hears of it.
    """

    __slots__ = ("_came", "_context", "_ending", "_invocation", "_metadata", "_recorder", "method")

    def __init__(self, recorder: Recorder, details: Any) -> None:
        self._recorder = recorder
        self._came = recorder.clock()
        self._metadata: Iterable[Any] = details.invocation_metadata or ()
        self._invocation: Invocation | None = None
        self._context: Any = None
        self._ending = threading.Lock()
        self.method: str = details.method

    def begin(self, context: Any) -> None:
        """Its handler is called."""
        forget_the_finished()
        try:
            self._begin()
            self._context = context
            if self._invocation is not None:
                context.set_trailing_metadata(((_REQUEST_ID, self._invocation.request.request_id),))
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the RPC
            internal_error("grpc", exc)

    def _begin(self) -> None:
        said = {key: value for key, value, *_ in self._metadata if key in {_REQUEST_ID, _TRACEPARENT} and isinstance(value, str)}
        invocation = self._recorder.begin(
            name=self.method,
            request_id=sane_request_id(said.get(_REQUEST_ID, "")),
            parent=parse_traceparent(said.get(_TRACEPARENT, "")),
        )
        invocation.began = self._came
        self._invocation = invocation

    def watch(self) -> None:
        """Hear of the end of the RPC: nobody asks the handler of a stream for more once its caller has left.

        What has not been counted by then has not come to its last message.
        """
        here = copy_context()
        add = getattr(self._context, "add_done_callback", None) or getattr(self._context, "add_callback", None)
        if add is not None:
            add(lambda *_: here.run(self.finish, gone=True))

    def streaming(self) -> None:
        """A message of a stream goes out."""
        if self._invocation is not None:
            self._invocation.streaming()

    def enter(self) -> None:
        """The handler goes on, after a `leave`."""
        self._guarded(lambda invocation: invocation.enter())

    def leave(self, *, failed: bool = False) -> None:
        """The handler rests, or is done."""
        self._guarded(lambda invocation: invocation.leave(failed=failed))

    def done(self) -> None:
        """The handler has returned."""
        self.finish()
        self.leave()

    def fail(self, error: BaseException) -> None:
        """The handler has raised."""
        self.finish(raised=error)
        self.leave(failed=True)

    def broken(self) -> None:
        """What the handler has returned is no message of the method's, of which the server makes an error of its own."""
        self.finish(code="INTERNAL")

    def refuse(self, code: str, *, operation: str = UNMATCHED, amounts_to: tuple[Outcome, ErrorType] = REFUSED) -> None:
        """Count an RPC that gets no further than the server: there is no such method, its request cannot be read, there are too many."""
        self._guarded_begin()
        if self._invocation is not None and self._ending.acquire(blocking=False):
            self._guarded(lambda invocation: self._count(invocation, operation, code, *amounts_to))
            self.leave()

    def _guarded_begin(self) -> None:
        try:
            self._begin()
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the RPC
            internal_error("grpc", exc)

    def finish(self, *, raised: BaseException | None = None, code: str = "", gone: bool = False) -> None:
        """Count the RPC, once. Without a `code` it is the one that the handler has set."""
        if self._invocation is not None and self._ending.acquire(blocking=False):
            self._guarded(lambda invocation: self._judge(invocation, raised, code, gone=gone))

    def _judge(self, invocation: Invocation, raised: BaseException | None, code: str, *, gone: bool) -> None:
        gone = gone or (not code and self._gone(raised))
        late = gone and self._late()
        ending = Ending(code or name_of(_ask(self._context, "code")), gone, late, raised, invocation.request.error_type)
        self._count(invocation, self.method, ending.sent, *judge(ending))

    def _gone(self, raised: BaseException | None) -> bool:
        """Whether the caller has left. asyncio's server cancels a handler then, and closes a stream."""
        if hasattr(self._context, "is_active"):
            return not self._context.is_active()
        return bool(_ask(self._context, "cancelled")) or (raised is not None and not isinstance(raised, Exception))

    def _late(self) -> bool:
        remaining = _ask(self._context, "time_remaining")
        return remaining is not None and remaining <= _ON_THE_WAY

    def _count(self, invocation: Invocation, operation: str, code: str, outcome: Outcome, error_type: ErrorType | None) -> None:
        attributes = _attributes(self.method, code) if invocation.request.sampled else NOTHING
        invocation.finish(operation=operation, protocol=PROTOCOL, outcome=outcome, error_type=error_type, attributes=attributes)
        served(invocation.request, invocation.seconds, (PROTOCOL, self.method, code, operation, outcome, error_type))

    def _guarded(self, step: Callable[[Invocation], None]) -> None:
        if self._invocation is None:
            return
        try:
            step(self._invocation)
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the RPC
            internal_error("grpc", exc)


def _ask(context: Any, question: str) -> Any:
    """What a context says, None where contexts of its kind or version do not."""
    asked = getattr(context, question, None)
    return None if asked is None else asked()


def _attributes(method: str, code: str) -> Attributes:
    service, _, name = method.lstrip("/").partition("/")
    return {"rpc.system": PROTOCOL, "rpc.service": service, "rpc.method": name, "rpc.response.status_code": code}
