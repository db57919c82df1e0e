"""mcp, the Model Context Protocol's SDK: a client's tool calls are the agent's tools, a server's requests are requests.

The trace goes along in `_meta`, as OpenTelemetry's conventions for MCP have it, whatever the transport.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

from sage_obs import records
from sage_obs.conventions import ErrorType
from sage_obs.genai.requests import recorder
from sage_obs.genai.taxonomy import classify
from sage_obs.genai.toolcalls import ToolCall
from sage_obs.genai.usage import part
from sage_obs.integrations import mcp_server as server
from sage_obs.integrations.outcome import of_rpc_code
from sage_obs.integrations.outgoing import inject
from sage_obs.integrations.patch import Patch, Patches
from sage_obs.metrics.active import internal_error
from sage_obs.tracing.context import request_var

_NAME: Final = "mcp"
_CODES: Final = {408: ErrorType.TIMEOUT, -32001: ErrorType.TIMEOUT, -32000: ErrorType.UNAVAILABLE}
"""Codes of the SDK's own: a request that timed out, by its first and its second major version, and a connection that closed."""
_CARRIERS: Final = (("StreamableHTTPSessionManager", "handle_request"), ("StreamableHTTPASGIApp", "__call__"))
"""What serves the HTTP of it; the second goes past the first from the SDK's second major version on."""
_STDIO: Final = ("mcp.server.stdio", "mcp.server.fastmcp.server", "mcp.server.mcpserver.server", "mcp")
"""Where `stdio_server` is, and where it has been imported to."""
_WRAPPERS: Final = ("_UnownedTextWrapper", "TextIOWrapper")
"""What it calls first, in the SDK's second and first major version: a program may have imported it by name before."""


class McpIntegration:
    """Counts what a client session calls and what a server answers."""

    name = _NAME
    module = _NAME
    versions = ("1.25", "3")

    def __init__(self) -> None:
        self._patches = Patches()

    def install(self) -> None:
        """Patch the client's session, the server and its transports, which are all imported with the package."""
        importlib.import_module(_NAME)
        self._patches.install(*_patches())

    def uninstall(self) -> None:
        """Put them back."""
        self._patches.uninstall()


def _patches() -> list[Patch]:
    http = importlib.import_module("mcp.server.streamable_http_manager")
    stdio = importlib.import_module("mcp.server.stdio")
    found = [
        Patch(_owner("mcp.client.session", "ClientSession"), "call_tool", _called),
        *(Patch(vars(http)[name], method, _carrying) for name, method in _CARRIERS if name in vars(http)),
        Patch(_owner("mcp.server.sse", "SseServerTransport"), "handle_post_message", _carrying),
        Patch(_owner("mcp.server.sse", "SseServerTransport"), "connect_sse", _opening),
        *(Patch(sys.modules[name], "stdio_server", _off_stdout) for name in _STDIO if name in sys.modules),
        Patch(stdio, next((name for name in _WRAPPERS if name in vars(stdio)), ""), _off_stdout),
    ]
    if "mcp.server._otel" in sys.modules:
        return [*found, Patch(_owner("mcp.server._otel", "OpenTelemetryMiddleware"), "__call__", server.around)]
    return [
        *found,
        Patch(_owner("mcp.server.lowlevel.server", "Server"), "_handle_request", server.handled),
        Patch(_owner("mcp.shared.session", "RequestResponder"), "respond", server.answered),
    ]


def _owner(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _called(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def call_tool(self: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        if recorder() is None:
            return await original(self, name, *args, **kwargs)
        call = ToolCall(name, attach=True)
        call.enter()
        call.asked(args[0] if args else kwargs.get("arguments"))
        try:
            result = await original(self, name, *args, **_with_trace(kwargs))
        except BaseException as exc:
            call.leave()
            call.finish(exc, kind=_kind_of(exc))
            raise
        call.leave()
        call.answered(result, _told)
        call.finish(None, kind=server.kind_of_result(result))
        return result

    return call_tool


def _told(result: Any) -> object:
    """What a tool has said: its structured content, else its texts."""
    structured = part(result, "structuredContent") or part(result, "structured_content")
    pieces: Any = part(result, "content") or ()
    return structured or [part(one, "text") or part(one, "type") for one in pieces]


def _with_trace(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments with the trace in `meta`; what the caller has put there stays."""
    try:
        carrier: dict[str, Any] = dict(kwargs.get("meta") or {})
        inject(_NAME, carrier)
    except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
        internal_error(_NAME, exc)
        return kwargs
    return {**kwargs, "meta": carrier} if carrier else kwargs


def _kind_of(error: BaseException) -> ErrorType:
    code = part(error, "error", "code")
    if not isinstance(code, int):
        return classify(error)
    return _CODES.get(code) or of_rpc_code(code)


def _carrying(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def carrying(*args: Any, **kwargs: Any) -> Any:
        _mark_carrier()
        return await original(*args, **kwargs)

    return carrying


def _opening(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def opening(*args: Any, **kwargs: Any) -> Any:
        _mark_carrier()
        return original(*args, **kwargs)

    return opening


def _mark_carrier() -> None:
    """The HTTP request being served is a transport: what it carries counts itself."""
    request = request_var.get()
    if request is not None and recorder() is not None:
        request.carries = True


def _off_stdout(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def on_stdout(*args: Any, **kwargs: Any) -> Any:
        leave = getattr(records.handler(), "leave_stdout", None)
        if leave is not None:
            leave()
        return original(*args, **kwargs)

    return on_stdout


INTEGRATION: Final = McpIntegration()
