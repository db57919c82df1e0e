"""Where boards look and lead to: data sources, runbook pages, and the mark of a board of ours."""

from __future__ import annotations

from typing import Final

from sage_obs.conventions import DEFAULT_PROMETHEUS_PORT, DEFAULT_RESPONDER_PORT

TAG: Final = "sage-obs"
"""The tag by which boards find each other, and by which `push` knows a board as ours."""
RUNBOOKS: Final = "runbooks"
"""The variable with the address of the runbook pages."""
DEFAULT_RUNBOOKS: Final = f"http://localhost:{DEFAULT_RESPONDER_PORT}/runbooks"
"""Where the runbook pages are: the responder serves them."""
DEFAULT_PROMETHEUS: Final = f"http://localhost:{DEFAULT_PROMETHEUS_PORT}"
"""The Prometheus of `sage-obs up`."""
