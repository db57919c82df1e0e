"""HTTP over ASGI, as little as the runtime needs: bodies in, JSON and server-sent events out."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final

import orjson

import sage_obs
from sage_agent.problems import Problem, invalid
from sage_agent.within import by, running_loop
from sage_obs.conventions import ErrorType

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Coroutine[Any, Any, Event]]
Head = dict[bytes, bytes]
Send = Callable[[Event], Awaitable[None]]

WATCH_AFTER_SECONDS: Final = 0.05
"""A shorter answer is not worth watching for its caller to leave: cancelling it would save nothing."""
_PLAIN_JSON: Final = frozenset({b"", b"application/json"})
_JSON: Final = (b"content-type", b"application/json")
_EVENT_STREAM: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class ClientGoneError(Exception):
    """The caller left before the answer; there is nobody to tell."""


def head_of(scope: Scope) -> Head:
    """The headers of a request by their names; of one that is there twice, the last."""
    return dict(scope["headers"])


def wants_fresh(head: Head) -> bool:
    """Whether the caller wants no answer that was given before (RFC 9111, section 5.2.1)."""
    said = head.get(b"cache-control")
    return said is not None and (b"no-cache" in said.lower() or b"no-store" in said.lower())


def check_media_type(head: Head) -> None:
    """Raise Problem (415) for a body that says it is something else than plain JSON."""
    said = head.get(b"content-type", b"")
    if said not in _PLAIN_JSON:
        media_type = said.decode("latin-1").partition(";")[0].strip().lower()
        if media_type not in {"", "application/json"} and not media_type.endswith("+json"):
            raise invalid(f"The body is {media_type[:80]}; send application/json.", HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    if head.get(b"content-encoding", b"identity") not in {b"", b"identity"}:
        raise invalid("The body is compressed; send it as it is.", HTTPStatus.UNSUPPORTED_MEDIA_TYPE)


async def read_body(head: Head, receive: Receive, *, limit: int, deadline: float) -> bytes:
    """The request's body of at most `limit` bytes, by `deadline`. Raises Problem (408, 413) and ClientGoneError."""
    length = head.get(b"content-length", b"")
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    event = await _receive(receive, deadline)
    if not event.get("more_body", False):
        body: bytes | bytearray = event.get("body", b"")
    else:  # many pieces: adding them to bytes would copy all before each
        body = bytearray(event.get("body", b""))
        while event.get("more_body", False) and len(body) <= limit:
            event = await _receive(receive, deadline)
            body += event.get("body", b"")
    if len(body) > limit:
        raise _too_large(limit)
    return bytes(body)


async def _receive(receive: Receive, deadline: float) -> Event:
    try:
        event = await by(deadline, receive())
    except TimeoutError:
        raise Problem(HTTPStatus.REQUEST_TIMEOUT, ErrorType.TIMEOUT, "The body did not arrive in time.") from None
    if event["type"] == "http.disconnect":
        raise ClientGoneError
    return event


def _too_large(limit: int) -> Problem:
    return invalid(f"The body is longer than {limit} bytes.", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


async def send_json(send: Send, document: object, *, status: int = HTTPStatus.OK, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    """Answer with a JSON document."""
    body = orjson.dumps(document)
    lines = [_JSON, (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": int(status), "headers": lines})
    await send({"type": "http.response.body", "body": body})


async def send_problem(send: Send, problem: Problem, *, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    """Answer with a problem: its status, what to do about it, and the id under which the log has it."""
    lines = [*problem.headers, *headers]
    if problem.retry_after is not None:
        lines.append((b"retry-after", b"%d" % problem.retry_after))
    await send_json(send, problem_document(problem), status=problem.status, headers=tuple(lines))


def problem_document(problem: Problem) -> dict[str, object]:
    """The body of every answer that is not the one asked for."""
    request_id = sage_obs.current().request_id or f"req-{secrets.token_hex(8)}"
    return {"error": {"type": problem.error_type.value, "message": problem.message, "request_id": request_id}}


class EventStream:
    """A server-sent event stream that begins with its first event."""

    def __init__(self, send: Send, *, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self._send = send
        self._headers = headers
        self.started = False

    async def event(self, name: str, document: object, *, last: bool = False) -> None:
        """Send one event; `last` ends the stream."""
        if not self.started:
            self.started = True
            await self._send({"type": "http.response.start", "status": 200, "headers": [*_EVENT_STREAM, *self._headers]})
        data = b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(document))
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})


class Departure:
    """A context that cancels the task inside it when the caller leaves; `gone` tells this from any other cancellation."""

    def __init__(self, receive: Receive, *, after: float = WATCH_AFTER_SECONDS) -> None:
        self._receive = receive
        self._after = after
        self._watcher: asyncio.Task[None] | None = None
        self.gone = False

    def __enter__(self) -> None:
        loop = running_loop()
        self._task = asyncio.current_task(loop)
        self._timer = loop.call_later(self._after, self._begin)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self.gone and self._task is not None:
            self._task.uncancel()

    def _begin(self) -> None:
        self._watcher = running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self._task is not None:
            self._task.cancel()
