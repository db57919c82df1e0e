"""requests: calls made with it carry the trace on. It adds one header and nothing else."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from sage_obs.integrations.outgoing import inject
from sage_obs.integrations.patch import Patch, Patches


class RequestsIntegration:
    """Adds `traceparent` to what sessions send, unless the application has."""

    name = "requests"
    module = "requests.sessions"
    versions = ("2.28", "3")

    def __init__(self) -> None:
        self._patches = Patches()

    def install(self) -> None:
        """Patch the session, which every function of the library goes through."""
        from requests.sessions import Session

        self._patches.install(Patch(Session, "send", _carrying))

    def uninstall(self) -> None:
        """Put it back."""
        self._patches.uninstall()


def _carrying(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def send(self: Any, request: Any, **kwargs: Any) -> Any:
        inject("requests", request.headers)
        return original(self, request, **kwargs)

    return send


INTEGRATION: Final = RequestsIntegration()
