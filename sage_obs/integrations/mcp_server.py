"""One request of an MCP client, in the server that answers it, whatever transport it came by.

It is a request of its own and never part of the one around it: a server answers in tasks that were started by whoever opened the
session, whose request may be long over. An HTTP exchange that brings it is its transport (see `Request.carries`).
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

from sage_obs.access import served
from sage_obs.conventions import ErrorType, Outcome
from sage_obs.genai.requests import Invocation, recorder
from sage_obs.genai.taxonomy import classify, outcome_of
from sage_obs.genai.usage import part
from sage_obs.health.board import board
from sage_obs.integrations.outcome import of_rpc_code
from sage_obs.integrations.routes import UNMATCHED
from sage_obs.loops import seen_here
from sage_obs.metrics.active import internal_error
from sage_obs.semconv import OPERATION, TOOL_NAME
from sage_obs.tracing.context import parse_traceparent

_PROTOCOL: Final = "mcp"
_CALL: Final = "tools/call"
_STREAMS: Final = frozenset({"subscriptions/listen"})
"""What lasts as long as the client listens is no request whose duration means anything."""
_NOT_FOUND: Final = -32601
_INVALID_PARAMS: Final = -32602
_CALLERS: Final = ("Unknown tool: ", "Input validation error: ")
"""How the SDK's answers begin where the caller, often a model that made the name up, has asked for what there is not."""


class Served:
    """A request from its coming to its answer, which `answer` or `error` says; None of them says that nobody waited for it."""

    def __init__(self, invocation: Invocation, method: str, tool: object) -> None:
        self._invocation = invocation
        self._method = method
        self._tool = tool if method == _CALL and isinstance(tool, str) else ""
        self._code: object = None
        self._kind: ErrorType | None = ErrorType.CANCELLED

    def answer(self, result: object) -> None:
        """It was answered; the answer itself may be an error."""
        self._code = part(result, "code") if type(result).__name__ == "ErrorData" else None
        self._kind = kind_of_result(result) if self._code is None else of_rpc_code(self._code)

    def error(self, error: BaseException) -> None:
        """It was answered with this error."""
        self._code = _INVALID_PARAMS if type(error).__name__ == "ValidationError" else part(error, "error", "code")
        self._kind = of_rpc_code(self._code) if isinstance(self._code, int) else classify(error)

    def end(self) -> None:
        """It is over."""
        try:
            self._count()
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the server
            internal_error(_PROTOCOL, exc)

    def _count(self) -> None:
        invocation, kind = self._invocation, self._invocation.request.error_type or self._kind
        outcome, operation = Outcome.SUCCESS if kind is None else outcome_of(kind), self._operation
        attributes = {"mcp.method.name": self._method}
        if self._tool:
            attributes |= {OPERATION: "execute_tool", TOOL_NAME: self._tool}
        invocation.finish(operation=operation, protocol=_PROTOCOL, outcome=outcome, error_type=kind, attributes=attributes)
        facts = ("MCP", operation, "ok" if kind is None else kind.value, operation, outcome, kind)
        served(invocation.request, invocation.seconds, facts)
        invocation.leave()

    @property
    def _operation(self) -> str:
        """What callers make up is no operation: a method that is not known, or a tool that may not be."""
        if self._code == _NOT_FOUND:
            return UNMATCHED
        return f"{_CALL} {self._tool}" if self._tool and self._kind is not ErrorType.INVALID_REQUEST else self._method


def kind_of_result(result: object) -> ErrorType | None:
    """The kind of error that a tool's answer says it is, as the SDK's object, one inside another, or what it looks like on the wire."""
    inner = part(result, "root") or result
    if not any(part(inner, name) is True for name in ("isError", "is_error")):
        return None
    content = part(inner, "content")
    said = part(content[0], "text") if isinstance(content, list) and content else None
    return ErrorType.INVALID_REQUEST if isinstance(said, str) and said.startswith(_CALLERS) else ErrorType.TOOL_ERROR


def begin(method: object, tool: object, meta: object) -> Served | None:
    """A request has come; None while the layer is off and for what is measured as no request."""
    active = recorder()
    if active is None or not isinstance(method, str) or method in _STREAMS:
        return None
    try:
        seen_here()
        board().started()
        parent = parse_traceparent(str(part(meta, "traceparent") or ""))
        return Served(active.begin(name=method, parent=parent), method, tool)
    except Exception as exc:  # noqa: BLE001 - the telemetry must not break the server
        internal_error(_PROTOCOL, exc)
        return None


def around(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The tracing of the SDK's second major version, around all its server does. Where a request is measured its span is ours."""

    @functools.wraps(original)
    async def __call__(self: Any, ctx: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:  # noqa: N807 - it replaces the method
        params = ctx.params if isinstance(ctx.params, Mapping) else {}
        request = None if ctx.request_id is None else begin(ctx.method, params.get("name"), ctx.meta)
        if request is None:
            return await original(self, ctx, call_next)
        try:
            result = await call_next(ctx)
        except BaseException as exc:
            request.error(exc)
            raise
        else:
            request.answer(result)
            return result
        finally:
            request.end()

    return __call__


_answering: Final[WeakKeyDictionary[Any, Served]] = WeakKeyDictionary()
"""By the SDK's object for each request that is being answered, in its first major version."""


def handled(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """How a server of the SDK's first major version handles a request."""

    @functools.wraps(original)
    async def _handle_request(self: Any, message: Any, req: Any, *args: Any, **kwargs: Any) -> Any:
        request = begin(part(req, "method"), part(req, "params", "name"), part(message, "request_meta"))
        if request is None:
            return await original(self, message, req, *args, **kwargs)
        _answering[message] = request
        try:
            return await original(self, message, req, *args, **kwargs)
        except BaseException as exc:
            request.error(exc)
            raise
        finally:
            _answering.pop(message, None)
            request.end()

    return _handle_request


def answered(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Where the answer can be seen."""

    @functools.wraps(original)
    async def respond(self: Any, response: Any) -> Any:
        if (request := _answering.get(self)) is not None:
            request.answer(response)
        return await original(self, response)

    return respond
