"""For tests of instrumented applications, and this project's own: a clean layer, and errors that are not swallowed."""

from __future__ import annotations

from sage_obs import lifecycle
from sage_obs.health.board import reset as reset_board
from sage_obs.metrics.active import reraise_internal_errors
from sage_obs.tracing.context import ambient_var, request_var

__all__ = ["reraise_internal_errors", "reset"]


def reset() -> None:
    """Switch the layer off and forget health checks, startup, draining and the current request."""
    lifecycle.uninstrument()
    reset_board()
    request_var.set(None)
    ambient_var.set(None)
