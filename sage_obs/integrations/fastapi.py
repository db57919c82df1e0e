"""FastAPI: measured as the Starlette application it is, from further out, and its own server spans give way to ours.

FastAPI wraps Starlette's `__call__` in telemetry of its own, which finds our tracer provider and would make every span a second time.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final

from sage_obs.health.board import board
from sage_obs.integrations.exchange import Receive, Scope, Send
from sage_obs.integrations.patch import Patch, Patches
from sage_obs.integrations.starlette import measured
from sage_obs.metrics.active import internal_error
from sage_obs.tracing.active import tracing

_TELEMETRY: Final = "fastapi.telemetry"
"""In a scope, whatever its value: FastAPI leaves this request to others."""


class FastApiIntegration:
    """Measures the requests of every FastAPI application."""

    name = "fastapi"
    module = "fastapi.applications"
    versions = ("0.109", "1")

    def __init__(self) -> None:
        self._patches = Patches()

    def install(self) -> None:
        """Patch the class."""
        from fastapi.applications import FastAPI

        if self._patches.install(Patch(FastAPI, "__call__", _measured)):
            board().expect_app()

    def uninstall(self) -> None:
        """Put it back."""
        self._patches.uninstall()


def _measured(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    outer = measured(original)

    @functools.wraps(original)
    async def __call__(self: Any, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: N807 - it replaces the method
        if scope["type"] == "http" and _TELEMETRY not in scope and _is_a_second_telling(self):
            scope[_TELEMETRY] = None
        await outer(self, scope, receive, send)

    return __call__


def _is_a_second_telling(app: Any) -> bool:
    """Whether FastAPI's own telemetry would do nothing but repeat our spans.

    Not so where the application gave it a provider, or where somebody reads the metrics or log records it makes besides.
    """
    try:
        native = getattr(app, "_native_telemetry", None)
        if tracing().spans is None or native is None or native.config["tracer_provider"] is not None:
            return False
        return not type(native)({**native.config, "tracing": False}).enabled()
    except Exception as exc:  # noqa: BLE001 - the telemetry must not break the request
        internal_error("fastapi", exc)
        return False


INTEGRATION: Final = FastApiIntegration()
