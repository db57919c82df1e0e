"""Django: both its handlers, named by the route that its URL configuration resolved."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from sage_obs.health.board import board
from sage_obs.integrations.asgi import RequestMiddleware
from sage_obs.integrations.exchange import Receive, Scope, Send
from sage_obs.integrations.patch import Patch, Patches
from sage_obs.integrations.routes import NOTED, noted
from sage_obs.integrations.wsgi import WsgiMiddleware, note
from sage_obs.integrations.wsgi_call import Environ, StartResponse
from sage_obs.metrics.active import internal_error


class DjangoIntegration:
    """Measures the requests that either handler serves."""

    name = "django"
    module = "django.core.handlers.wsgi"
    modules = ("django.core.handlers.wsgi", "django.core.handlers.asgi")
    """A process imports one of the two."""
    versions = ("4.2", "7")

    def __init__(self) -> None:
        self._patches = Patches()

    def install(self) -> None:
        """Patch both handlers. Importing the other one may bring the import hook back here, in the middle."""
        from django.core.handlers.asgi import ASGIHandler
        from django.core.handlers.base import BaseHandler
        from django.core.handlers.wsgi import WSGIHandler

        installed = self._patches.install(
            Patch(WSGIHandler, "__call__", _measured),
            Patch(ASGIHandler, "__call__", _measured_async),
            Patch(BaseHandler, "resolve_request", _noting),
        )
        if installed:
            board().expect_app()

    def uninstall(self) -> None:
        """Put them back."""
        self._patches.uninstall()


def _measured(original: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    @functools.wraps(original)
    def __call__(self: Any, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:  # noqa: N807 - it replaces the method
        return WsgiMiddleware(functools.partial(original, self))(environ, start_response)

    return __call__


def _measured_async(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(original)
    async def __call__(self: Any, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: N807 - it replaces the method
        await RequestMiddleware(functools.partial(original, self), operation=noted)(scope, receive, send)

    return __call__


def _noting(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def resolve_request(self: Any, request: Any) -> Any:
        match = original(self, request)
        try:
            _note(request, f"/{match.route}")
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the request
            internal_error("django", exc)
        return match

    return resolve_request


def _note(request: Any, template: str) -> None:
    if (scope := getattr(request, "scope", None)) is not None:
        scope[NOTED] = template
    elif (environ := getattr(request, "environ", None)) is not None:
        note(environ, template)


INTEGRATION: Final = DjangoIntegration()
