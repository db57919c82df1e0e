"""Drive an ASGI application without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

Scope = dict[str, Any]


def scope_of(method: str, path: str, headers: Iterable[tuple[str, str]] = ()) -> Scope:
    """An HTTP scope as a server makes it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


@dataclass
class Answer:
    """What an application answered."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


async def serve(app: Callable[..., Any], scope: Scope, *, events: Iterable[dict[str, Any]] = ()) -> Answer:
    """Serve one request; `events` are what `receive` gives after the empty body."""
    answer = Answer()
    waiting = [{"type": "http.request", "body": b"", "more_body": False}, *events]

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(event: dict[str, Any]) -> None:
        if event["type"] == "http.response.start":
            answer.status = event["status"]
            answer.headers = {name.decode(): value.decode() for name, value in event["headers"]}
        else:
            answer.body += event.get("body", b"")

    await app(scope, receive, send)
    return answer


def call(app: Callable[..., Any], method: str, path: str, **headers: str) -> Answer:
    """One request in an event loop of its own; `_` in names of headers is `-`."""
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return asyncio.run(serve(app, scope_of(method, path, named)))


def answering(status: int, body: bytes = b"", *, content_type: str = "application/json") -> Callable[..., Any]:
    """An application that always answers this, in one piece."""

    async def app(scope: Scope, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type.encode())]})
        await send({"type": "http.response.body", "body": body})

    return app
