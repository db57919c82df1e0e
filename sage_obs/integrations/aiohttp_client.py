"""aiohttp's client: calls made with it carry the trace on. It adds one header and nothing else."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final

from sage_obs.integrations.outgoing import inject
from sage_obs.integrations.patch import Patch, Patches


class AiohttpClientIntegration:
    """Adds `traceparent` to what sessions send, unless the application has. Apart from the server, which few of its users import."""

    name = "aiohttp-client"
    distribution = "aiohttp"
    module = "aiohttp.client_reqrep"
    versions = ("3.11", "4")

    def __init__(self) -> None:
        self._patches = Patches()

    def install(self) -> None:
        """Patch the request, whose headers are complete when it is sent."""
        from aiohttp.client_reqrep import ClientRequest

        owner = next(kind for kind in ClientRequest.__mro__ if "send" in kind.__dict__)
        self._patches.install(Patch(owner, "send", _carrying))

    def uninstall(self) -> None:
        """Put it back."""
        self._patches.uninstall()


def _carrying(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def send(self: Any, *args: Any, **kwargs: Any) -> Any:
        inject("aiohttp-client", self.headers)
        return await original(self, *args, **kwargs)

    return send


INTEGRATION: Final = AiohttpClientIntegration()
