"""The ASGI application: a dictionary of routes, and one place where failures become answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus
from typing import Final

import sage_obs
from sage_agent.callers import Caller, Role
from sage_agent.flow.service import Service
from sage_agent.messages import Message, Reply, parse_message
from sage_agent.problems import Problem, invalid
from sage_agent.server.config import ServerConfig
from sage_agent.values import value
from sage_agent.web.failures import answer_failure, unless_gone
from sage_agent.web.guard import Guard, OpenGuard, said_also
from sage_agent.web.wire import (
    EventStream,
    Receive,
    Scope,
    Send,
    check_media_type,
    head_of,
    problem_document,
    read_body,
    send_json,
    wants_fresh,
)
from sage_agent.within import running_loop
from sage_obs.conventions import ErrorType

MESSAGE_PATHS: Final = ("/v1/messages", "/a2a/v1/messages", "/sage/message")
STREAM_PATH: Final = "/v1/messages/stream"
UNMATCHED: Final = "unmatched"
_NOTHING: Final = nullcontext()


def operation(scope: Scope) -> str:
    """What request metrics call a request: one of the routes, never a path a caller made up."""
    known = scope["path"] in MESSAGE_PATHS or scope["path"] == STREAM_PATH
    return f"POST {scope['path']}" if known and scope["method"] == "POST" else UNMATCHED


class App:
    """Answers messages over HTTP. Anything but a success is a JSON `error` with a request id, or an `error` event in a stream."""

    def __init__(self, service: Service, limits: ServerConfig, guard: Guard | None = None) -> None:
        self._service = service
        self._guard: Guard = guard or OpenGuard()
        self._limits = limits
        self._routes: Mapping[str, Callable[[Scope, Receive, Send], Awaitable[None]]] = {
            **dict.fromkeys(MESSAGE_PATHS, self._answer),
            STREAM_PATH: self._stream,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            await self._route(scope)(scope, receive, send)
        except Exception as exc:  # noqa: BLE001 - the last resort: the caller gets JSON, the log the traceback
            await answer_failure(send, exc, headers=said_also(scope))

    def _route(self, scope: Scope) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        route = self._routes.get(scope["path"])
        if route is None:
            raise invalid(f"There is nothing at this path; messages go to POST {MESSAGE_PATHS[0]}.", HTTPStatus.NOT_FOUND)
        if scope["method"] != "POST":
            raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, ErrorType.INVALID_REQUEST, "Use POST.", headers=((b"allow", b"POST"),))
        return route

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = await self._read(scope, receive)
        answer = self._service.answer(asked.message, caller=asked.caller, deadline=asked.deadline, fresh=asked.fresh)
        with _around(asked):
            reply = await unless_gone(receive, answer)
        await send_json(send, reply.document(), headers=said_also(scope))

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = await self._read(scope, receive)
        events = EventStream(send, headers=said_also(scope))

        async def emit(piece: Reply) -> None:
            await events.event("message", piece.document())

        try:
            answer = self._service.stream(asked.message, caller=asked.caller, deadline=asked.deadline, emit=emit, fresh=asked.fresh)
            with _around(asked):
                end = await unless_gone(receive, answer)
        except Problem as problem:
            if not events.started:
                raise
            sage_obs.record_error(problem.error_type)
            await events.event("error", problem_document(problem), last=True)
        else:
            await events.event("done", {"messageId": end.message_id, "metadata": end.metadata()}, last=True)

    async def _read(self, scope: Scope, receive: Receive) -> _Asked:
        """Who sent which message, and when its answer is due in the event loop's time."""
        deadline = running_loop().time() + self._limits.request_timeout
        caller = await self._guard.identify(scope)
        head = head_of(scope)
        check_media_type(head)
        body = await read_body(head, receive, limit=self._limits.max_body_bytes, deadline=deadline)
        caller = await self._guard.verify(scope, body, caller)
        if caller.role < Role.OPERATOR:
            raise Problem(HTTPStatus.FORBIDDEN, ErrorType.AUTH, "Sending messages needs the role operator.")
        return _Asked(caller, parse_message(body), deadline, wants_fresh(head))


@value
class _Asked:
    caller: Caller
    message: Message
    deadline: float
    fresh: bool


def _around(asked: _Asked) -> AbstractContextManager[object]:
    """Log lines and spans of a request say whose it is and which conversation it belongs to, where that is known."""
    tenant, conversation = asked.caller.tenant or None, asked.message.context_id or None
    return sage_obs.context(tenant=tenant, conversation_id=conversation) if tenant or conversation else _NOTHING
