"""Starlette, and what is built on it: every application, however early its class was imported or its stack built.

The patch is on `Starlette.__call__`, so that it also covers applications that serve already and subclasses that build their own
stack, and leaves nothing behind in them when it goes.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final

from sage_obs.health.board import board
from sage_obs.integrations.asgi import begin, unmeasured
from sage_obs.integrations.exchange import Receive, Scope, Send
from sage_obs.integrations.patch import Patch, Patches
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
        self._patches = Patches()

    def install(self) -> None:
        """Patch the class."""
        from starlette.applications import Starlette

        if self._patches.install(Patch(Starlette, "__call__", measured)):
            board().expect_app()

    def uninstall(self) -> None:
        """Put it back."""
        self._patches.uninstall()


def measured(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The method of an application with Starlette's routes, with every request measured around it."""

    @functools.wraps(original)
    async def __call__(self: Any, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: N807 - it replaces the method
        exchange = begin(_Kind(self), scope, receive, send)
        if exchange is None:
            await unmeasured(functools.partial(original, self), scope, receive, send)
            return
        try:
            await original(self, scope, exchange.receive, exchange.send)
        except BaseException as exc:
            exchange.end(exc)
            raise
        exchange.end()

    return __call__


class _Kind:
    """The requests of one application."""

    __slots__ = ("_app",)
    protocol: Final = "http"
    component: Final = "asgi"

    def __init__(self, app: Any) -> None:
        self._app = app

    def operation(self, scope: Scope) -> str:
        """By the application's routes."""
        return ROUTES.operation(self._app, scope)


INTEGRATION: Final = StarletteIntegration()
