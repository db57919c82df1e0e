"""Which tools there are, as read from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ToolsConfig:
    """Functions as `module:name`; how often a model is asked in one request; seconds a call may take; characters of its result."""

    functions: tuple[str, ...]
    max_steps: int
    timeout: float
    max_chars: int


def read_tools(plain: Mapping[str, Any]) -> ToolsConfig:
    """Read the settings by argument name."""
    return ToolsConfig(plain["tools"], plain["max_steps"], plain["tool_timeout"], plain["tool_max_chars"])
