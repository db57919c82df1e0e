"""GET over HTTP with errors that say what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sage_obs.errors import UnavailableError

if TYPE_CHECKING:
    import httpx

TIMEOUT = 5.0
"""Seconds after which a server that does not answer counts as unreachable."""


def new_client() -> httpx.Client:
    """A client that ignores proxy variables, for what is asked here is near, and leaves no connection open behind it."""
    import httpx

    return httpx.Client(timeout=TIMEOUT, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))


def get(client: httpx.Client, url: str, *, what: str, hint: str, params: dict[str, str] | None = None) -> httpx.Response:
    """GET `url`. Raises UnavailableError, naming `what` and giving `hint`, when no answer comes."""
    import httpx

    try:
        return client.get(url, params=params)
    except httpx.TimeoutException as exc:
        raise UnavailableError(f"{what} at {url} did not answer within {TIMEOUT:g} s.", hint=hint) from exc
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as exc:
        raise UnavailableError(f"Cannot reach {what} at {url} ({_reason(exc)}).", hint=hint) from exc


def _reason(exc: Exception) -> str:
    text = str(exc) or type(exc).__name__
    return "connection refused" if "Connection refused" in text else text
