"""Where A2A stands beside the lean path, and when it is loaded: its packages cost most of a second, so at the first request."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from sage_agent.a2a.paths import CARD_PATHS, RPC_PATH
from sage_agent.web.app import MESSAGE_PATHS
from sage_agent.web.wire import Receive, Scope, Send
from sage_obs.errors import SageObsError

Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
_PACKAGES: Final = ("a2a", "starlette", "sse_starlette")


class A2aMissingError(SageObsError, ImportError):
    """A2A was asked for, and its package is not installed."""


class Endpoint(Protocol):
    """The loaded protocol."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

    async def close(self) -> None:
        """Cancel what still runs."""


def wanted(enabled: str) -> bool:
    """Whether A2A is to be served. Raises A2aMissingError where it was asked for by name and cannot be."""
    if enabled == "false":
        return False
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing and enabled == "true":
        raise A2aMissingError(f"a2a.enabled is true, and {', '.join(missing)} is missing.", hint="Install it: pip install 'sage-obs[a2a]'")
    return not missing


class Mount:
    """An ASGI application that loads another one, away from the event loop, when it is first needed."""

    def __init__(self, load: Callable[[], Endpoint]) -> None:
        self._load = load
        self._endpoint: Endpoint | None = None
        self._loading = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self._endpoint is None:
            async with self._loading:
                if self._endpoint is None:
                    self._endpoint = await asyncio.to_thread(self._load)
        await self._endpoint(scope, receive, send)

    async def close(self) -> None:
        """Cancel what still runs, where anything was loaded."""
        if self._endpoint is not None:
            await self._endpoint.close()


def beside(lean: Asgi, a2a: Asgi) -> Asgi:
    """The lean path for everything that is not A2A's; no coroutine stands in between."""

    def serve(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path = scope.get("path", "")
        if path in MESSAGE_PATHS or not (path.startswith(RPC_PATH) or path in CARD_PATHS):
            return lean(scope, receive, send)
        return a2a(scope, receive, send)

    return serve
