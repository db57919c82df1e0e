"""Flask: every application, whether its server calls it or its `wsgi_app`, named by the rule that matched."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Final

from sage_obs.health.board import board
from sage_obs.integrations.patch import Patch, Patches
from sage_obs.integrations.wsgi import WsgiMiddleware, note
from sage_obs.integrations.wsgi_call import Environ, StartResponse
from sage_obs.metrics.active import internal_error


class FlaskIntegration:
    """Measures the requests of every Flask application."""

    name = "flask"
    module = "flask.app"
    versions = ("2.2", "4")

    def __init__(self) -> None:
        self._patches = Patches()

    def install(self) -> None:
        """Patch the class."""
        from flask.app import Flask

        installed = self._patches.install(
            Patch(Flask, "__call__", _measured),
            Patch(Flask, "wsgi_app", _measured),
            Patch(Flask, "full_dispatch_request", _noting),
        )
        if installed:
            board().expect_app()

    def uninstall(self) -> None:
        """Put it back."""
        self._patches.uninstall()


def _measured(original: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    @functools.wraps(original)
    def serve(self: Any, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return WsgiMiddleware(functools.partial(original, self))(environ, start_response)

    return serve


def _noting(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def full_dispatch_request(self: Any, *args: Any, **kwargs: Any) -> Any:
        _note()
        return original(self, *args, **kwargs)

    return full_dispatch_request


def _note() -> None:
    """The rule is known before any of the application's functions runs, and forgotten before its answer goes out."""
    try:
        from flask.globals import request

        if request.url_rule is not None:
            note(request.environ, request.url_rule.rule)
    except Exception as exc:  # noqa: BLE001 - the telemetry must not break the request
        internal_error("flask", exc)


INTEGRATION: Final = FlaskIntegration()
