"""What an integration is, and the list of them."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Final, Protocol

from sage_obs.errors import SageObsError


class UnusableLibraryError(SageObsError, ImportError):
    """An integration was asked for by name, and its library is missing or of a version it does not know."""


class NotFoundError(SageObsError):
    """A library that is not installed and that nobody asked for by name, or one there is nothing to do for."""


class Integration(Protocol):
    """Patches one library. `install` after `uninstall` and the other way round leave the library as it was."""

    @property
    def name(self) -> str:
        """The library's name, as `libraries` and `disable` take it."""

    @property
    def module(self) -> str:
        """The module whose import makes the patch possible."""

    @property
    def versions(self) -> tuple[str, str]:
        """The first version it knows and the first one it does not, such as ("0.27", "2")."""

    def install(self) -> None:
        """Patch the library, which is imported already or is imported by this."""

    def uninstall(self) -> None:
        """Put everything back; nothing happens where nothing is installed."""


_MODULES: Final = {
    "starlette": "sage_obs.integrations.starlette",
    "uvicorn": "sage_obs.integrations.uvicorn",
    "httpx": "sage_obs.integrations.httpx",
    "fastapi": "sage_obs.integrations.fastapi",
    "flask": "sage_obs.integrations.flask",
    "django": "sage_obs.integrations.django",
    "aiohttp": "sage_obs.integrations.aiohttp",
    "aiohttp-client": "sage_obs.integrations.aiohttp_client",
    "requests": "sage_obs.integrations.requests",
    "httpx2": "sage_obs.integrations.httpx2",
    "logging": "sage_obs.integrations.logging",
    "loguru": "sage_obs.integrations.loguru",
    "structlog": "sage_obs.integrations.structlog",
    "gunicorn": "sage_obs.integrations.gunicorn",
    "granian": "sage_obs.integrations.granian",
    "openai": "sage_obs.integrations.openai",
    "anthropic": "sage_obs.integrations.anthropic",
    "google-genai": "sage_obs.integrations.google_genai",
    "litellm": "sage_obs.integrations.litellm",
    "grpc": "sage_obs.integrations.grpc",
    "psycopg": "sage_obs.integrations.psycopg",
    "asyncpg": "sage_obs.integrations.asyncpg",
    "sqlalchemy": "sage_obs.integrations.sqlalchemy",
    "redis": "sage_obs.integrations.redis",
    "celery": "sage_obs.integrations.celery",
    "mcp": "sage_obs.integrations.mcp",
    "langchain": "sage_obs.integrations.langchain",
    "langchain-tools": "sage_obs.integrations.langchain_tools",
    "langgraph": "sage_obs.integrations.langgraph",
}

NAMES: Final = tuple(_MODULES)
"""Every integration, in the order they are installed."""


def load(name: str) -> Integration:
    """The integration of this name. Raises UnusableLibraryError for an unknown one."""
    if name not in _MODULES:
        raise UnusableLibraryError(f"There is no integration for `{name}`.", hint=f"There are: {', '.join(NAMES)}.")
    module: ModuleType = importlib.import_module(_MODULES[name])
    found: Integration = module.INTEGRATION
    return found
