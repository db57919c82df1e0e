"""What tokens cost: list prices by model, in US dollars for a million tokens, as they stood on `AS_OF`.

The tests compare every line with the price map that litellm brings along. Discounts for batches and volume are not in it, nor what some
models cost more beyond so many tokens of context, or for caches that live longer than five minutes. A model that is not here costs
nothing and is counted as unknown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from sage_obs.errors import ConfigError
from sage_obs.genai.usage import Usage
from sage_obs.settings import parse_amount, read_yaml

AS_OF: Final = date(2026, 11, 24)
_MILLION: Final = 1_000_000
_REVISION: Final = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8}|\d{3,4}|latest)$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million input and a million output tokens.

    `cached_read` and `cached_write` are what input costs that is read from or written to a cache; None where it costs what other does.
    """

    input: float
    output: float
    cached_read: float | None = None
    cached_write: float | None = None

    def cost(self, usage: Usage) -> float:
        """US dollars for so many tokens."""
        read = self.input if self.cached_read is None else self.cached_read
        write = self.input if self.cached_write is None else self.cached_write
        plain = usage.input - usage.cached_read - usage.cached_write
        return (plain * self.input + usage.cached_read * read + usage.cached_write * write + usage.output * self.output) / _MILLION


FREE: Final = Price(0.0, 0.0)
FREE_PROVIDERS: Final = frozenset({"scripted"})
"""Providers that run here and bill nobody."""

PRICES: Final = {
    "claude-fable-5": Price(10.00, 50.00, cached_read=1.00, cached_write=12.50),
    "claude-fable-5-1": Price(10.00, 50.00, cached_read=0.25, cached_write=12.50),
    "claude-haiku-4-5": Price(1.00, 5.00, cached_read=0.10, cached_write=1.25),
    "claude-haiku-5-5": Price(0.10, 0.50, cached_read=0.01, cached_write=0.125),
    "claude-mythos-5": Price(10.00, 50.00, cached_read=1.00, cached_write=12.50),
    "claude-mythos-5-1": Price(10.00, 50.00, cached_read=0.25, cached_write=12.50),
    "claude-mythos-preview": Price(10.00, 50.00, cached_read=1.00, cached_write=12.50),
    "claude-opus-4-5": Price(5.00, 25.00, cached_read=0.50, cached_write=6.25),
    "claude-opus-4-6": Price(5.00, 25.00, cached_read=0.50, cached_write=6.25),
    "claude-opus-4-7": Price(5.00, 25.00, cached_read=0.50, cached_write=6.25),
    "claude-opus-4-8": Price(5.00, 25.00, cached_read=0.50, cached_write=6.25),
    "claude-opus-5": Price(5.00, 25.00, cached_read=0.50, cached_write=6.25),
    "claude-opus-5-5": Price(4.00, 20.00, cached_read=0.20, cached_write=5.00),
    "claude-sonnet-4-5": Price(3.00, 15.00, cached_read=0.30, cached_write=3.75),
    "claude-sonnet-4-6": Price(3.00, 15.00, cached_read=0.30, cached_write=3.75),
    "claude-sonnet-5": Price(2.00, 10.00, cached_read=0.20, cached_write=2.50),
    "claude-sonnet-5-5": Price(2.00, 10.00, cached_read=0.10, cached_write=2.50),
    "gemini-2.5-flash": Price(0.30, 2.50, cached_read=0.03),
    "gemini-2.5-flash-lite": Price(0.10, 0.40, cached_read=0.01),
    "gemini-2.5-pro": Price(1.25, 10.00, cached_read=0.125),
    "gemini-3-flash-preview": Price(0.50, 3.00, cached_read=0.05),
    "gemini-3.1-flash-lite": Price(0.25, 1.50, cached_read=0.025),
    "gemini-3.1-flash-lite-preview": Price(0.25, 1.50, cached_read=0.025),
    "gemini-3.1-pro-preview": Price(2.00, 12.00, cached_read=0.20),
    "gemini-3.5-flash": Price(1.50, 9.00, cached_read=0.15),
    "gemini-3.5-flash-lite": Price(0.30, 2.50, cached_read=0.03),
    "gemini-3.6-flash": Price(0.75, 3.75, cached_read=0.075),
    "gemini-3.7-flash": Price(0.75, 3.75, cached_read=0.075),
    "gemini-3.8-flash": Price(0.75, 3.75, cached_read=0.075),
    "gemini-4-argon": Price(2.00, 10.00, cached_read=0.10),
    "gemini-4-hydrogen": Price(1.50, 7.50, cached_read=0.075),
    "gemini-embedding-001": Price(0.15, 0.00),
    "gemini-embedding-2": Price(0.20, 0.00),
    "gemini-embedding-2-preview": Price(0.20, 0.00),
    "gpt-3.5-turbo": Price(0.50, 1.50),
    "gpt-3.5-turbo-1106": Price(1.00, 2.00),
    "gpt-4": Price(30.00, 60.00),
    "gpt-4-turbo": Price(10.00, 30.00),
    "gpt-4.1": Price(2.00, 8.00, cached_read=0.50),
    "gpt-4.1-mini": Price(0.40, 1.60, cached_read=0.10),
    "gpt-4.1-nano": Price(0.10, 0.40, cached_read=0.025),
    "gpt-4o": Price(2.50, 10.00, cached_read=1.25),
    "gpt-4o-mini": Price(0.15, 0.60, cached_read=0.075),
    "gpt-4o-2024-05-13": Price(5.00, 15.00),
    "gpt-5": Price(1.25, 10.00, cached_read=0.125),
    "gpt-5-chat": Price(1.25, 10.00, cached_read=0.125),
    "gpt-5-codex": Price(1.25, 10.00, cached_read=0.125),
    "gpt-5-mini": Price(0.25, 2.00, cached_read=0.025),
    "gpt-5-nano": Price(0.05, 0.40, cached_read=0.005),
    "gpt-5-pro": Price(15.00, 120.00),
    "gpt-5.1": Price(1.25, 10.00, cached_read=0.125),
    "gpt-5.1-codex": Price(1.25, 10.00, cached_read=0.125),
    "gpt-5.1-codex-max": Price(1.25, 10.00, cached_read=0.125),
    "gpt-5.1-codex-mini": Price(0.25, 2.00, cached_read=0.025),
    "gpt-5.2": Price(1.75, 14.00, cached_read=0.175),
    "gpt-5.2-codex": Price(1.75, 14.00, cached_read=0.175),
    "gpt-5.2-pro": Price(21.00, 168.00),
    "gpt-5.3-codex": Price(1.75, 14.00, cached_read=0.175),
    "gpt-5.4": Price(2.50, 15.00, cached_read=0.25),
    "gpt-5.4-mini": Price(0.75, 4.50, cached_read=0.075),
    "gpt-5.4-nano": Price(0.20, 1.25, cached_read=0.02),
    "gpt-5.4-pro": Price(30.00, 180.00),
    "gpt-5.5": Price(5.00, 30.00, cached_read=0.50),
    "gpt-5.5-pro": Price(30.00, 180.00),
    "gpt-5.6": Price(4.00, 20.00, cached_read=0.40, cached_write=5.00),
    "gpt-5.6-luna": Price(0.20, 1.20, cached_read=0.02, cached_write=0.25),
    "gpt-5.6-sol": Price(4.00, 20.00, cached_read=0.40, cached_write=5.00),
    "gpt-5.6-terra": Price(2.00, 12.00, cached_read=0.20, cached_write=2.50),
    "gpt-6-astra": Price(10.00, 50.00, cached_read=1.00, cached_write=12.50),
    "gpt-6-luna": Price(0.10, 0.50, cached_read=0.01, cached_write=0.125),
    "gpt-6-sol": Price(2.00, 10.00, cached_read=0.20, cached_write=2.50),
    "gpt-6.1-sol": Price(2.00, 10.00, cached_read=0.10, cached_write=2.50),
    "gpt-6.1-terra": Price(1.00, 5.00, cached_read=0.05, cached_write=1.25),
    "o1": Price(15.00, 60.00, cached_read=7.50),
    "o1-pro": Price(150.00, 600.00),
    "o3": Price(2.00, 8.00, cached_read=0.50),
    "o3-mini": Price(1.10, 4.40, cached_read=0.55),
    "o3-pro": Price(20.00, 80.00),
    "o4-mini": Price(1.10, 4.40, cached_read=0.275),
    "text-embedding-3-large": Price(0.13, 0.00),
    "text-embedding-3-small": Price(0.02, 0.00),
    "text-embedding-ada-002": Price(0.10, 0.00),
}


class _Active:
    __slots__ = ("own",)

    def __init__(self) -> None:
        self.own: Mapping[str, Price] = {}


_active: Final = _Active()


def use(own: Mapping[str, Price]) -> None:
    """Bill these models by these prices from now on, before what the table says."""
    _active.own = own


def load(file: str) -> Mapping[str, Price]:
    """The prices in a YAML or JSON file; no file is no prices. Raises ConfigError where it cannot be read or says something else.

    A model has `input`, `output` and perhaps `cached_read` and `cached_write`, in US dollars for a million tokens.
    """
    if not file:
        return {}
    tree = read_yaml(Path(file), os.environ)
    found: dict[str, dict[str, object]] = {}
    for path, value in tree.items():
        model, _, name = path.rpartition(".")
        found.setdefault(model.lower(), {})[name] = value
    return {model: _price(file, model, said) for model, said in found.items()}


def _price(file: str, model: str, said: Mapping[str, object]) -> Price:
    try:
        return Price(**{name: parse_amount(value) for name, value in said.items()})
    except (TypeError, ValueError):
        hint = "A model has `input` and `output`, and may have `cached_read` and `cached_write`: US dollars for a million tokens."
        raise ConfigError(f"{file}: `{model}` is no price.", hint=hint) from None


def price_of(provider: str, model: str) -> Price | None:
    """The price of a model, dated revisions of it included (`gpt-4o-2024-08-06`); None where it is not known."""
    if provider in FREE_PROVIDERS:
        return FREE
    name = model.lower()
    revised = _REVISION.sub("", name)
    own = _active.own
    return own.get(name) or own.get(revised) or PRICES.get(name) or PRICES.get(revised)


def cost_of(provider: str, model: str, *, input: int = 0, output: int = 0, cached_read: int = 0, cached_write: int = 0) -> float | None:  # noqa: A002 - the conventions' word
    """US dollars that a call with so many tokens costs, by the prices in use; None for a model without a price.

    Input includes what was read from and written to a cache. It does not depend on instrument(), and counts nothing.
    """
    price = price_of(provider, model)
    usage = Usage.of(input=input, output=output, cached_read=cached_read, cached_write=cached_write)
    return None if price is None else price.cost(usage)
