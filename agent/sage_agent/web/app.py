"""The ASGI application: a dictionary of routes, and one place where failures become answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus
from typing import Final

import orjson

import sage_obs
from sage_agent.callers import Caller, Role
from sage_agent.flow.service import Service
from sage_agent.messages import Message, Reply, parse_message
from sage_agent.problems import Problem, invalid, other_method
from sage_agent.server.config import ServerConfig
from sage_agent.values import value
from sage_agent.web.failures import answer_failure, unless_gone
from sage_agent.web.guard import Guard, OpenGuard, said_also
from sage_agent.web.operations import EVENTS, HEALTH, Operation, ref
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
from sage_obs.conventions import HEALTH_PATHS, ErrorType

MESSAGE_PATHS: Final = ("/v1/messages", "/a2a/v1/messages", "/sage/message")
STREAM_PATH: Final = "/v1/messages/stream"
OPENAPI_PATH: Final = "/openapi.json"
UNMATCHED: Final = "unmatched"
_POST: Final = ("POST",)
_GET: Final = ("GET", "HEAD")
_NOTHING: Final = nullcontext()
_FAILURES: Final = (400, 408, 413, 415, 422, 429, 502, 503, 504)
MESSAGES: Final = (
    *(
        Operation("POST", path, "One message in, one out.", ref("Reply"), ref("Asked"), role=Role.OPERATOR, errors=_FAILURES)
        for path in MESSAGE_PATHS
    ),
    Operation("POST", STREAM_PATH, "One message in, its answer in pieces.", ref("Event"), ref("Asked"), EVENTS, Role.OPERATOR, _FAILURES),
)
OPERATIONS: Final = (*MESSAGES, Operation("GET", OPENAPI_PATH, "This document.", {"type": "object"}), *HEALTH)


def operation(scope: Scope) -> str:
    """What request metrics call a request: one of the routes, never a path a caller made up."""
    method, path = scope["method"], scope["path"]
    known = method == "POST" if path in MESSAGE_PATHS or path == STREAM_PATH else method == "GET" and path == OPENAPI_PATH
    return f"{method} {path}" if known else UNMATCHED


class App:
    """Answers messages over HTTP. Anything but a success is a JSON `error` with a request id, or an `error` event in a stream.

    `described` is the OpenAPI document of all that is served, as JSON.
    """

    def __init__(self, service: Service, limits: ServerConfig, guard: Guard | None = None, *, described: bytes = b"{}") -> None:
        self._service = service
        self._guard: Guard = guard or OpenGuard()
        self._limits = limits
        self._described = described
        self._routes: Mapping[str, tuple[tuple[str, ...], Callable[[Scope, Receive, Send], Awaitable[None]]]] = {
            **dict.fromkeys(MESSAGE_PATHS, (_POST, self._answer)),
            STREAM_PATH: (_POST, self._stream),
            OPENAPI_PATH: (_GET, self._describe),
            **dict.fromkeys(HEALTH_PATHS, (_GET, _not_probed)),
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
            raise _nothing_here()
        methods, serve = route
        if scope["method"] not in methods:
            raise other_method(methods)
        return serve

    async def _describe(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send_json(send, orjson.Fragment(self._described))

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


def _nothing_here() -> Problem:
    return invalid(f"There is nothing at this path; messages go to POST {MESSAGE_PATHS[0]}.", HTTPStatus.NOT_FOUND)


async def _not_probed(scope: Scope, receive: Receive, send: Send) -> None:
    """The layer answers probes, where it is on."""
    del scope, receive, send
    raise _nothing_here()


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
