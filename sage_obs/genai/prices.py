"""What tokens cost: list prices by model, in US dollars for a million tokens, as the providers published them on `AS_OF`.

Batch, cache and volume discounts are not in it. A model that is not here costs nothing and is counted as unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Final

AS_OF: Final = date(2025, 10, 1)
_MILLION: Final = 1_000_000
_REVISION: Final = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8}|\d{3,4}|latest)$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million input and a million output tokens."""

    input: float
    output: float

    def cost(self, *, input: int, output: int) -> float:  # noqa: A002 - the conventions' word
        """US dollars for so many tokens."""
        return (input * self.input + output * self.output) / _MILLION


FREE: Final = Price(0.0, 0.0)
FREE_PROVIDERS: Final = frozenset({"scripted"})
"""Providers that run here and bill nobody."""

PRICES: Final = {
    "claude-3-5-haiku": Price(0.80, 4.00),
    "claude-3-5-sonnet": Price(3.00, 15.00),
    "claude-3-7-sonnet": Price(3.00, 15.00),
    "claude-haiku-4-5": Price(1.00, 5.00),
    "claude-opus-4": Price(15.00, 75.00),
    "claude-opus-4-1": Price(15.00, 75.00),
    "claude-sonnet-4": Price(3.00, 15.00),
    "claude-sonnet-4-5": Price(3.00, 15.00),
    "gemini-2.0-flash": Price(0.10, 0.40),
    "gemini-2.5-flash": Price(0.30, 2.50),
    "gemini-2.5-flash-lite": Price(0.10, 0.40),
    "gpt-4.1": Price(2.00, 8.00),
    "gpt-4.1-mini": Price(0.40, 1.60),
    "gpt-4.1-nano": Price(0.10, 0.40),
    "gpt-4o": Price(2.50, 10.00),
    "gpt-4o-mini": Price(0.15, 0.60),
    "gpt-5": Price(1.25, 10.00),
    "gpt-5-mini": Price(0.25, 2.00),
    "gpt-5-nano": Price(0.05, 0.40),
    "o3": Price(2.00, 8.00),
    "o4-mini": Price(1.10, 4.40),
}


def price_of(provider: str, model: str) -> Price | None:
    """The price of a model, dated revisions of it included (`gpt-4o-2024-08-06`); None where it is not known."""
    if provider in FREE_PROVIDERS:
        return FREE
    name = model.lower()
    return PRICES.get(name) or PRICES.get(_REVISION.sub("", name))
