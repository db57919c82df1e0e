"""httpx, and httpx2, which has the same clients: calls made with them carry the trace on. It adds one header and nothing else."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

from sage_obs.integrations.outgoing import inject
from sage_obs.integrations.patch import Patch, Patches


class HttpxIntegration:
    """Adds `traceparent` to the requests of both clients, unless the application has."""

    def __init__(self, name: str, versions: tuple[str, str]) -> None:
        self.name = self.module = name
        self.versions = versions
        self._patches = Patches()

    def install(self) -> None:
        """Patch both clients."""
        library = importlib.import_module(self.module)
        self._patches.install(Patch(library.Client, "send", self._sync), Patch(library.AsyncClient, "send", self._async))

    def uninstall(self) -> None:
        """Put them back."""
        self._patches.uninstall()

    def _sync(self, original: Callable[..., Any]) -> Callable[..., Any]:
        name = self.name

        @functools.wraps(original)
        def send(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
            inject(name, request.headers)
            return original(self, request, *args, **kwargs)

        return send

    def _async(self, original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        name = self.name

        @functools.wraps(original)
        async def send(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
            inject(name, request.headers)
            return await original(self, request, *args, **kwargs)

        return send


INTEGRATION: Final = HttpxIntegration("httpx", ("0.24", "1"))
