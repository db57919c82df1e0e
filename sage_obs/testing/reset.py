"""A clean layer between tests."""

from __future__ import annotations

from sage_obs import lifecycle
from sage_obs.health.board import reset as reset_board
from sage_obs.tracing.context import ambient_var, request_var


def reset() -> None:
    """Switch the layer off and forget health checks, startup, draining and the current request."""
    lifecycle.release()
    lifecycle.uninstrument()
    reset_board()
    request_var.set(None)
    ambient_var.set(None)
