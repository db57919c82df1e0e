"""Starlette, and what is built on it: every application, however early its class was imported or its stack built.

The patch is on `Starlette.__call__`, so that it also covers applications that serve already and subclasses that build their own
stack, and leaves nothing behind in them when it goes.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final

from sage_obs.health.board import board
from sage_obs.integrations.asgi import RequestMiddleware
from sage_obs.integrations.exchange import Receive, Scope, Send
from sage_obs.integrations.patch import Patch
from sage_obs.integrations.routes import RouteTable

ROUTES: Final = RouteTable()


def operation_of(app: Any) -> Callable[[Scope], str]:
    """The function that names the requests of an application with Starlette's routes."""
    return functools.partial(ROUTES.operation, app)


class StarletteIntegration:
    """Measures the requests of every Starlette application."""

    name = "starlette"
    module = "starlette.applications"
    versions = ("0.35", "2")

    def __init__(self) -> None:
        self._patch: Patch | None = None

    def install(self) -> None:
        """Patch the class."""
        from starlette.applications import Starlette

        if self._patch is None:
            self._patch = Patch(Starlette, "__call__", measured)
            self._patch.install()
            board().expect_app()

    def uninstall(self) -> None:
        """Put it back."""
        if self._patch is not None:
            self._patch.uninstall()
            self._patch = None


def measured(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The method of an application with Starlette's routes, with every request measured around it."""

    @functools.wraps(original)
    async def __call__(self: Any, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: N807 - it replaces the method
        serve = functools.partial(original, self)
        await RequestMiddleware(serve, operation=operation_of(self))(scope, receive, send)

    return __call__


INTEGRATION: Final = StarletteIntegration()
