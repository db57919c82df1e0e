"""For tests of instrumented applications, and this project's own: a clean layer, what it records in memory, errors that are not swallowed.

from sage_obs import testing

with testing.capture() as telemetry:
    answer("How much is it?")
assert telemetry.value("sage_tool_calls_total", tool="search") == 1
"""

from __future__ import annotations

from sage_obs.metrics.active import reraise_internal_errors
from sage_obs.testing.capture import Captured, capture
from sage_obs.testing.reset import reset
from sage_obs.testing.seen import Line, Span

__all__ = ["Captured", "Line", "Span", "capture", "reraise_internal_errors", "reset"]
