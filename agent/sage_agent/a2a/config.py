"""The A2A protocol, as read from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class A2aConfig:
    """Whether A2A is spoken (`auto`, `true`, `false`), what the agent's card says, and how long tasks are kept, in seconds."""

    enabled: str
    url: str
    description: str
    task_ttl: float


def read_a2a(plain: Mapping[str, Any]) -> A2aConfig:
    """Read the settings by argument name."""
    return A2aConfig(**{name: plain[f"a2a_{name}"] for name in A2aConfig.__dataclass_fields__})
