"""Tools: functions of the operator's own that a model may call."""

from __future__ import annotations

from sage_agent.tools.errors import ToolError

__all__ = ["ToolError"]
