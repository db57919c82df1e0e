"""Health that means something: `sage_obs.health.register`, `started` and `drain`.

Checks may be registered before instrument(); they are the process's, not a call's.
"""

from __future__ import annotations

from sage_obs.health.board import board
from sage_obs.health.checks import DEFAULT_TIMEOUT_SECONDS, CheckFunction


def register(name: str, check: CheckFunction, *, critical: bool = True, timeout: float = DEFAULT_TIMEOUT_SECONDS) -> None:
    """Let readiness depend on a check; the same name replaces the earlier one.

    `check` takes nothing and returns a bool or None, or is a coroutine function of that kind; False, an exception and no answer
    within `timeout` seconds all mean unhealthy. A check that is not critical only degrades.
    """
    board().register(name, check, critical=critical, timeout=timeout)


def unregister(name: str) -> None:
    """Take a check back; an unknown name is fine."""
    board().unregister(name)


def started() -> None:
    """Say that startup is complete, where no ASGI lifespan and no request says so."""
    board().started()


def drain() -> None:
    """Answer readiness with 503 from now on, so that no new work is sent here. Liveness stays healthy."""
    board().drain()


__all__ = ["drain", "register", "started", "unregister"]
