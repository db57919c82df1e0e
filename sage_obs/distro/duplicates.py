"""Instrumentors of OpenTelemetry that make the same spans as an integration of ours."""

from __future__ import annotations

from typing import Final

from sage_obs.integrations import base

_SAME_SPANS: Final = {
    "fastapi": ("fastapi", "starlette"),
    "starlette": ("starlette",),
    "flask": ("flask",),
    "django": ("django",),
    "aiohttp-server": ("aiohttp-server", "aiohttp"),
    "grpc-server": ("grpc",),
    "grpc-aio-server": ("grpc",),
    "openai": ("openai",),
    "anthropic": ("anthropic",),
    "google-genai": ("google-genai", "google_genai"),
    "google-generativeai": ("google-genai", "google_genai"),
    "litellm": ("litellm",),
    "langchain": ("langchain",),
    "mcp": ("mcp",),
}
"""Name of an instrumentor → integrations, the first that there is. Clients such as httpx are not here: ours make no spans for them."""


def ours(instrumentor: str) -> str | None:
    """Our integration that measures what an instrumentor would measure again; None where it does something else."""
    candidates = _SAME_SPANS.get(instrumentor.replace("_", "-"), ())
    return next((name for name in candidates if name in base.NAMES), None)
