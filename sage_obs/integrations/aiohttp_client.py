"""aiohttp's client: calls made with it carry the trace on. It adds one header and nothing else."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final

from sage_obs.integrations.outgoing import inject
from sage_obs.integrations.patch import Patch


class AiohttpClientIntegration:
    """Adds `traceparent` to what sessions send, unless the application has. Apart from the server, which few of its users import."""

    name = "aiohttp-client"
    distribution = "aiohttp"
    module = "aiohttp.client_reqrep"
    versions = ("3.11", "4")

    def __init__(self) -> None:
        self._patch: Patch | None = None

    def install(self) -> None:
        """Patch the request, whose headers are complete when it is sent."""
        from aiohttp.client_reqrep import ClientRequest

        if self._patch is None:
            owner = next(kind for kind in ClientRequest.__mro__ if "send" in kind.__dict__)
            self._patch = Patch(owner, "send", _carrying)
            self._patch.install()

    def uninstall(self) -> None:
        """Put it back."""
        if self._patch is not None:
            self._patch.uninstall()
            self._patch = None


def _carrying(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def send(self: Any, *args: Any, **kwargs: Any) -> Any:
        inject("aiohttp-client", self.headers)
        return await original(self, *args, **kwargs)

    return send


INTEGRATION: Final = AiohttpClientIntegration()
