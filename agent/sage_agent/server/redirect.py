"""HTTP that only sends on to HTTPS."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from sage_agent.server.connections import Application, Scope
from sage_obs.conventions import HEALTH_PATHS

_HOST: Final = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253})(?::\d{1,5})?")


class Redirect:
    """An ASGI application that answers 308 with the same address over TLS; probes are answered by `app`."""

    def __init__(self, app: Application, *, port: int) -> None:
        self._app = app
        self._port = b"" if port == 443 else b":%d" % port  # noqa: PLR2004 - what HTTPS means where nothing is said

    async def __call__(self, scope: Scope, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        """Send on."""
        if scope["path"] in HEALTH_PATHS:
            await self._app(scope, receive, send)
            return
        host = _HOST.fullmatch(dict(scope["headers"]).get(b"host", b""))
        if host is None:
            await send({"type": "http.response.start", "status": 400, "headers": [(b"content-length", b"0")]})
        else:
            query = b"?" + scope["query_string"] if scope["query_string"] else b""
            place = b"https://" + host.group(1) + self._port + scope["raw_path"] + query
            head = [(b"location", place), (b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 308, "headers": head})
        await send({"type": "http.response.body", "body": b""})
