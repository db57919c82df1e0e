"""Observability for services that run AI agents: `import sage_obs; sage_obs.instrument()`.

Importing this does nothing but define names; what stands behind them is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sage_obs import health
    from sage_obs.genai.agents import agent
    from sage_obs.genai.calls import LlmCall, llm_call
    from sage_obs.genai.prices import cost_of
    from sage_obs.genai.tools import tool
    from sage_obs.genai.waits import waiting
    from sage_obs.lifecycle import Handle, flush, instrument, instrument_app, uninstrument
    from sage_obs.metrics.active import observe, series
    from sage_obs.tracing.active import sampling
    from sage_obs.tracing.ambient import context
    from sage_obs.tracing.context import CurrentRequest, current, record_error

_HOMES: Final = {
    "CurrentRequest": "sage_obs.tracing.context",
    "Handle": "sage_obs.lifecycle",
    "LlmCall": "sage_obs.genai.calls",
    "agent": "sage_obs.genai.agents",
    "context": "sage_obs.tracing.ambient",
    "cost_of": "sage_obs.genai.prices",
    "current": "sage_obs.tracing.context",
    "flush": "sage_obs.lifecycle",
    "instrument": "sage_obs.lifecycle",
    "instrument_app": "sage_obs.lifecycle",
    "llm_call": "sage_obs.genai.calls",
    "observe": "sage_obs.metrics.active",
    "record_error": "sage_obs.tracing.context",
    "sampling": "sage_obs.tracing.active",
    "series": "sage_obs.metrics.active",
    "tool": "sage_obs.genai.tools",
    "uninstrument": "sage_obs.lifecycle",
    "waiting": "sage_obs.genai.waits",
}

__all__ = [
    "CurrentRequest",
    "Handle",
    "LlmCall",
    "agent",
    "context",
    "cost_of",
    "current",
    "flush",
    "health",
    "instrument",
    "instrument_app",
    "llm_call",
    "observe",
    "record_error",
    "sampling",
    "series",
    "tool",
    "uninstrument",
    "waiting",
]


def __getattr__(name: str) -> Any:
    if name == "health":
        return importlib.import_module("sage_obs.health")
    if name not in _HOMES:
        raise AttributeError(f"module 'sage_obs' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
