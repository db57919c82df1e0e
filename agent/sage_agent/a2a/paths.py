"""Paths and methods of A2A, and what request metrics call them: few names, whatever callers send."""

from __future__ import annotations

import re
from typing import Final

import orjson

from sage_agent.callers import Role
from sage_agent.web.operations import Operation
from sage_agent.web.wire import Scope

RPC_PATH: Final = "/a2a"
CARD_PATHS: Final = ("/.well-known/agent-card.json", "/.well-known/agent.json")
"""Where agents look for a card: the path of 1.0 and late 0.3, and the one before it."""
OPERATIONS: Final = (
    Operation(
        "POST", RPC_PATH, "JSON-RPC, as A2A 1.0 and 0.3 define it.", {}, {}, role=Role.OPERATOR, errors=(400, 408, 413, 415, 429, 503)
    ),
    *(Operation("GET", path, "The agent's card, as A2A defines it.", {"type": "object"}) for path in CARD_PATHS),
)
"""The REST binding is described by A2A itself."""
UNMATCHED: Final = "unmatched"
STREAMING: Final = frozenset({"SendStreamingMessage", "message/stream", "SubscribeToTask", "tasks/resubscribe"})
SENDING: Final = frozenset({"SendMessage", "message/send"})
READING: Final = frozenset({"GetTask", "tasks/get", "ListTasks"})
METHODS: Final = frozenset({
    *STREAMING, *SENDING, *READING, "CancelTask", "tasks/cancel", "GetExtendedAgentCard",
})  # fmt: skip
"""What is answered; push notifications are not, and fall under `unmatched`."""
_OPERATION: Final = "sage_agent.operation"
_READ: Final = re.compile(r"/a2a(?:/v1)?/tasks(?:/[A-Za-z0-9._~-]+)?", re.ASCII)
"""A path that reads; narrower than what is routed, for which a line end at the end of `:cancel` is none."""
_REST: Final = (
    (re.compile(r"/a2a(?:/v1)?/message:send"), "message:send"),
    (re.compile(r"/a2a(?:/v1)?/message:stream"), "message:stream"),
    (re.compile(r"/a2a(?:/v1)?/tasks/[^/]+:cancel"), "tasks:cancel"),
    (re.compile(r"/a2a(?:/v1)?/tasks/[^/]+:subscribe"), "tasks:subscribe"),
    (re.compile(r"/a2a(?:/v1)?/tasks/[^/]+"), "tasks:get"),
    (re.compile(r"/a2a(?:/v1)?/tasks"), "tasks:list"),
)


def rest_operation(path: str) -> str:
    """What a request of the REST binding asks for; `unmatched` for nothing that exists."""
    return next((name for pattern, name in _REST if pattern.fullmatch(path)), UNMATCHED)


def needed_role(scope: Scope, body: bytes) -> Role:
    """What a caller has to be: a viewer to read tasks, an operator for whatever is not plainly that."""
    if scope["path"] == RPC_PATH:
        reads = _method(body) in READING
    else:
        reads = scope["method"] == "GET" and _READ.fullmatch(scope["path"]) is not None
    return Role.VIEWER if reads else Role.OPERATOR


def _method(body: bytes) -> str:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    method = document.get("method") if isinstance(document, dict) else None
    return method if isinstance(method, str) else ""


def name_operation(scope: Scope, name: str) -> None:
    """Say what a request turned out to be."""
    scope[_OPERATION] = name


def operation(scope: Scope) -> str:
    """What request metrics call a request that was served."""
    return str(scope.get(_OPERATION, UNMATCHED))
