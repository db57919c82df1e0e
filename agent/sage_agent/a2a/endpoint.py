"""A2A over HTTP: JSON-RPC at `/a2a`, the REST binding below it, and the agent's card."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any, Final

import orjson
from a2a.server.request_handlers import DefaultRequestHandlerV2
from a2a.server.request_handlers.response_helpers import agent_card_to_dict
from a2a.server.routes.jsonrpc_dispatcher import JsonRpcDispatcher
from a2a.server.routes.rest_routes import create_rest_routes
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Router

import sage_obs
from sage_agent.a2a.callers import Call, CallContexts, with_call
from sage_agent.a2a.card import make_card
from sage_agent.a2a.config import A2aConfig
from sage_agent.a2a.executor import ServiceExecutor
from sage_agent.a2a.failures import quieten
from sage_agent.a2a.paths import CARD_PATHS, METHODS, RPC_PATH, SENDING, STREAMING, UNMATCHED, name_operation, rest_operation
from sage_agent.a2a.tasks import SharedTasks
from sage_agent.flow.service import Service
from sage_agent.problems import Problem, invalid
from sage_agent.server.config import ServerConfig
from sage_agent.state.base import Tasks
from sage_agent.web.failures import answer_failure
from sage_agent.web.guard import Guard, said_also
from sage_agent.web.wire import ClientGoneError, Event, Receive, Scope, Send, check_media_type, head_of, read_body, send_json
from sage_obs.conventions import ErrorType

MOST_NESTED: Final = 64
"""Levels of JSON. Deeper ones would end in the SDK's recursion, as a failure of the agent."""
_PARSE_ERROR: Final = -32700
_INVALID_REQUEST: Final = -32600
_VERSION_NOT_SUPPORTED: Final = -32009
_CALLERS_FAULT: Final = frozenset({-32001, -32002, -32003, -32004, -32005, -32007, -32008, -32009})
"""A2A 1.0, 5.4: no such task, not cancelable, not supported."""


class A2aEndpoint:
    """An ASGI application that speaks A2A 1.0 and 0.3. What is wrong with a request before it is read is answered as on the lean path."""

    def __init__(
        self, config: A2aConfig, limits: ServerConfig, service: Service, tasks: Tasks, guard: Guard, *, name: str, version: str
    ) -> None:
        self._config = config
        self._limits = limits
        self._guard = guard
        self._identity = {"name": name, "version": version, "description": config.description}
        self._handler = _quiet_handler(
            ServiceExecutor(service, timeout=limits.request_timeout), SharedTasks(tasks, seconds=config.task_ttl), self._card("")
        )
        contexts = CallContexts()
        self._rpc = JsonRpcDispatcher(self._handler, context_builder=contexts, enable_v0_3_compat=True)
        self._rest = Router(create_rest_routes(self._handler, context_builder=contexts, enable_v0_3_compat=True, path_prefix=RPC_PATH))
        quieten()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            if scope["path"] in CARD_PATHS:
                await self._answer_card(scope, send)
            elif scope["path"] == RPC_PATH:
                await self._answer_rpc(scope, receive, send)
            else:
                await self._answer_rest(scope, receive, send)
        except Exception as exc:  # noqa: BLE001 - the last resort: the caller gets JSON, the log the traceback
            await answer_failure(send, exc, headers=said_also(scope))

    async def close(self) -> None:
        """Cancel the tasks that still run."""
        await self._handler.aclose()

    def _card(self, url: str) -> Any:
        return make_card(url=self._config.url or url or "http://localhost", **self._identity)

    async def _answer_card(self, scope: Scope, send: Send) -> None:
        if scope["method"] not in {"GET", "HEAD"}:
            raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, ErrorType.INVALID_REQUEST, "Use GET.", headers=((b"allow", b"GET"),))
        name_operation(scope, "agent-card")
        card = self._card(f"{scope['scheme']}://{_said(scope, b'host') or 'localhost'}")
        await send_json(send, agent_card_to_dict(card), headers=((b"cache-control", b"no-cache"), (b"vary", b"host")))

    async def _answer_rpc(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, ErrorType.INVALID_REQUEST, "Use POST.", headers=((b"allow", b"POST"),))
        call, body = await self._read(scope, receive)
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as exc:
            await _send_error(send, _PARSE_ERROR, f"The body is not valid JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}.")
            return
        if not isinstance(document, dict) or too_deep(document):
            wrong = f"The body must be one JSON-RPC request, nested no deeper than {MOST_NESTED} levels."
            await _send_error(send, _INVALID_REQUEST, wrong)
            return
        method = document.get("method")
        name_operation(scope, method if isinstance(method, str) and method in METHODS else UNMATCHED)
        if (mismatch := _version_mismatch(method, _said(scope, b"a2a-version"))) is not None:
            await _send_error(send, _VERSION_NOT_SUPPORTED, mismatch, of=document)
            return
        call.streamed = method in STREAMING
        inner, replay = with_call(dict(scope), call), _Replay(body, receive)
        work = self._rpc.handle_requests(Request(inner, replay.receive))
        response = await (_waited_for(receive, work, call) if method in SENDING else work)
        _count(bytes(response.body) if isinstance(response, JSONResponse) else b"")
        await response(inner, replay.receive, send)

    async def _answer_rest(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = rest_operation(scope["path"])
        name_operation(scope, name)
        if name == UNMATCHED:
            raise invalid("There is nothing at this path; A2A's JSON-RPC is at POST /a2a.", HTTPStatus.NOT_FOUND)
        call, body = await self._read(scope, receive)
        call.streamed = name in {"message:stream", "tasks:subscribe"}
        if body and too_deep(_loads(body)):
            raise invalid(f"The body is nested deeper than {MOST_NESTED} levels.")
        await self._rest(with_call(dict(scope), call), _Replay(body, receive).receive, send)

    async def _read(self, scope: Scope, receive: Receive) -> tuple[Call, bytes]:
        deadline = asyncio.get_running_loop().time() + self._limits.request_timeout
        caller = await self._guard.identify(scope)
        head = head_of(scope)
        check_media_type(head)
        body = await read_body(head, receive, limit=self._limits.max_body_bytes, deadline=deadline)
        caller = await self._guard.verify(scope, body, caller)
        return Call(caller, deadline, streamed=False), body


def _said(scope: Scope, name: bytes) -> str:
    """A header's value, "" where there is none."""
    return head_of(scope).get(name, b"").decode("latin-1")


def _quiet_handler(executor: ServiceExecutor, tasks: SharedTasks, card: Any) -> DefaultRequestHandlerV2:
    """The SDK's handler. Its warning that a stream can be joined on its own replica only is in our documentation."""
    logger = logging.getLogger("a2a.server.request_handlers.default_request_handler_v2")
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return DefaultRequestHandlerV2(agent_executor=executor, task_store=tasks, agent_card=card)


async def _waited_for(receive: Receive, work: Coroutine[Any, Any, Any], call: Call) -> Any:
    """Work that ends when its caller leaves. Raises ClientGoneError then.

    The SDK swallows the cancellation of a request, as others may watch its task; so it is the call to the model that is cancelled.
    """
    answer, leaving = asyncio.create_task(work), asyncio.create_task(_departure(receive))
    try:
        await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientGoneError
        return answer.result()
    finally:
        leaving.cancel()
        if not answer.done():
            answer.add_done_callback(_unheard)
            answer.cancel()
            if call.work is not None:
                call.work.cancel()


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _unheard(answer: asyncio.Task[Any]) -> None:
    """Nobody waits for it any more, so nobody is told how it ended."""
    if not answer.cancelled():
        answer.exception()


def too_deep(document: object) -> bool:
    """Whether JSON is nested deeper than MOST_NESTED."""
    level: Sequence[object] = [document]
    for _ in range(MOST_NESTED):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return True


def _inside(value: object) -> Sequence[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else ()


def _loads(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise invalid(f"The body is not valid JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}.") from None


def _version_mismatch(method: object, version: str) -> str | None:
    """What is wrong where a method of one version is asked for under the header of another."""
    if method not in METHODS or not version:
        return None
    spoken = "0.3" if "/" in str(method) else "1.0"
    return None if version.startswith(spoken) else f"{method} is a method of A2A {spoken}, and A2A-Version says {version[:20]}."


def _count(answer: bytes) -> None:
    """Count what A2A's own codes say of the caller (no such task, cannot be cancelled) as the caller's error."""
    if b'"error"' not in answer:
        return
    error = orjson.loads(answer).get("error")
    if isinstance(error, dict) and error.get("code") in _CALLERS_FAULT:
        sage_obs.record_error(ErrorType.INVALID_REQUEST)


async def _send_error(send: Send, code: int, message: str, *, of: object = None) -> None:
    sage_obs.record_error(ErrorType.INVALID_REQUEST)
    number = of.get("id") if isinstance(of, dict) else None
    answered = number if isinstance(number, str | int) and not isinstance(number, bool) else None
    await send_json(send, {"jsonrpc": "2.0", "id": answered, "error": {"code": code, "message": message}})


class _Replay:
    """A `receive` that hands out a body that was read already, then waits for the caller to leave."""

    def __init__(self, body: bytes, receive: Callable[[], Awaitable[Event]]) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def receive(self) -> Event:
        """The body, once; then what comes."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        return await self._receive()
