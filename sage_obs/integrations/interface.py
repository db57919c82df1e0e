"""What kind of application something is."""

from __future__ import annotations

import inspect
from typing import Any, Final, Literal

Interface = Literal["asgi", "wsgi"]

_PATCHED: Final = frozenset(
    {
        "starlette.applications.Starlette",
        "flask.app.Flask",
        "django.core.handlers.asgi.ASGIHandler",
        "django.core.handlers.wsgi.WSGIHandler",
        "aiohttp.web_app.Application",
    }
)
"""The classes whose instances the integrations measure; FastAPI's is a Starlette."""


def interface_of(app: Any) -> Interface:
    """`wsgi` for what is no coroutine function and takes two arguments but not three; `asgi` for the rest."""
    if inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(getattr(app, "__call__", None)):  # noqa: B004 - its kind is asked
        return "asgi"
    return "wsgi" if _takes(app, 2) and not _takes(app, 3) else "asgi"


def _takes(app: Any, count: int) -> bool:
    try:
        inspect.signature(app).bind(*range(count))
    except (TypeError, ValueError):
        return False
    return True


def found_by_itself(app: Any) -> bool:
    """Whether an integration measures the application where it stands."""
    return not _PATCHED.isdisjoint(f"{kind.__module__}.{kind.__qualname__}" for kind in type(app).__mro__)
