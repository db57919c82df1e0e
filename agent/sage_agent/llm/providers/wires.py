"""The wire formats by the name a configuration has for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sage_agent.llm.providers.anthropic import AnthropicWire
from sage_agent.llm.providers.gemini import GeminiWire
from sage_agent.llm.providers.http import Wire
from sage_agent.llm.providers.openai import openai_wire

_WIRES: Final[dict[str, Callable[[str], Wire]]] = {
    "openai": openai_wire,
    "anthropic": lambda _: AnthropicWire(),
    "gemini": lambda _: GeminiWire(),
}


def wire_of(provider: str, base_url: str = "") -> Wire:
    """The format that this provider speaks at this address."""
    return _WIRES[provider](base_url)
