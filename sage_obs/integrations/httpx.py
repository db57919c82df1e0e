"""httpx: calls made with it carry the trace on. It adds one header and nothing else."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final

from sage_obs.integrations.patch import Patch
from sage_obs.metrics.active import internal_error
from sage_obs.tracing.active import tracing

_HEADER: Final = "traceparent"


class HttpxIntegration:
    """Adds `traceparent` to the requests of both clients, unless the application has."""

    name = "httpx"
    module = "httpx"
    versions = ("0.24", "1")

    def __init__(self) -> None:
        self._patches: tuple[Patch, ...] = ()

    def install(self) -> None:
        """Patch both clients."""
        import httpx

        if not self._patches:
            self._patches = (Patch(httpx.Client, "send", _sync), Patch(httpx.AsyncClient, "send", _async))
            for patch in self._patches:
                patch.install()

    def uninstall(self) -> None:
        """Put them back."""
        for patch in self._patches:
            patch.uninstall()
        self._patches = ()


def _sync(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def send(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        _inject(request)
        return original(self, request, *args, **kwargs)

    return send


def _async(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def send(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        _inject(request)
        return await original(self, request, *args, **kwargs)

    return send


def _inject(request: Any) -> None:
    try:
        if (header := tracing().outgoing()) and _HEADER not in request.headers:
            request.headers[_HEADER] = header
    except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
        internal_error("httpx", exc)


INTEGRATION: Final = HttpxIntegration()
