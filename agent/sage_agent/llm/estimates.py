"""How many tokens a text is, before anybody who knows has said so."""

from __future__ import annotations

import math
from typing import Final

from sage_agent.llm.providers.base import Prompt

_CHARACTERS: Final = 4
"""Of English a token is about four characters (OpenAI's and Anthropic's own rule of thumb)."""
_CAREFUL: Final = 3
"""Where too little would be worse than too much, a token is three."""


def tokens_of(characters: int) -> int:
    """About how many tokens so many characters are."""
    return math.ceil(characters / _CHARACTERS)


def at_most(prompt: Prompt) -> int:
    """More tokens than a question is likely to be."""
    return math.ceil(prompt.length / _CAREFUL) + 8 * (2 + len(prompt.turns))
