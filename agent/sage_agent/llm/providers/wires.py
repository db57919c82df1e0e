"""The wire formats by the name a configuration has for them."""

from __future__ import annotations

from typing import Final

from sage_agent.llm.providers.anthropic import AnthropicWire
from sage_agent.llm.providers.gemini import GeminiWire
from sage_agent.llm.providers.http import Wire
from sage_agent.llm.providers.openai import OpenAIWire

_WIRES: Final[dict[str, Wire]] = {"openai": OpenAIWire(), "anthropic": AnthropicWire(), "gemini": GeminiWire()}


def wire_of(provider: str) -> Wire:
    """The format that this provider speaks."""
    return _WIRES[provider]
