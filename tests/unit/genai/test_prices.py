"""Our price table against the price map in litellm's wheel, which its maintainers keep; both are list prices."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

import sage_obs
from sage_obs.errors import ConfigError
from sage_obs.genai.prices import PRICES, Price, price_of
from sage_obs.genai.usage import Usage

_MILLION = 1_000_000
_PROVIDERS = ("openai", "anthropic", "gemini", "vertex_ai-language-models")
_MODES = ("chat", "responses", "embedding")


def _map() -> dict[str, dict[str, Any]]:
    spec = importlib.util.find_spec("litellm")  # importing it takes seconds
    assert spec is not None
    assert spec.origin is not None
    found: dict[str, dict[str, Any]] = orjson.loads((Path(spec.origin).parent / "model_prices_and_context_window_backup.json").read_bytes())
    return found


THEIRS = _map()


def _theirs(model: str) -> Price:
    """The price of a model there, Gemini's under its own service's name."""
    entry = THEIRS.get(f"gemini/{model}") or THEIRS[model]

    def per_million(name: str) -> float | None:
        return round(entry[name] * _MILLION, 6) if entry.get(name) else None

    return Price(
        per_million("input_cost_per_token") or 0.0,
        per_million("output_cost_per_token") or 0.0,
        per_million("cache_read_input_token_cost"),
        per_million("cache_creation_input_token_cost"),
    )


@pytest.mark.parametrize("model", PRICES)
def test_every_price_is_the_one_that_litellm_has(model: str) -> None:
    """Input, output, and both prices of the cache."""
    assert PRICES[model] == _theirs(model)


def test_every_name_that_leads_to_a_price_leads_to_its_own() -> None:
    """A dated revision that costs something else than its model has a line of its own."""
    names = [
        name.removeprefix("gemini/")
        for name, entry in THEIRS.items()
        if entry.get("litellm_provider") in _PROVIDERS and entry.get("mode") in _MODES and not name.startswith(("vertex_ai/", "ft:"))
    ]
    known = {name: found for name in names if (found := price_of("openai", name)) is not None}
    assert len(known) > len(PRICES)
    assert {name: found for name, found in known.items() if found != _theirs(name)} == {}


def test_cached_tokens_cost_what_the_cache_does() -> None:
    """What was read from a cache and written to it is billed apart; without prices for that it is input like any other."""
    usage = Usage.of(input=100, output=20, cached_read=40, cached_write=10)
    assert Price(1.0, 5.0, 0.1, 1.25).cost(usage) * _MILLION == pytest.approx(50 * 1.0 + 40 * 0.1 + 10 * 1.25 + 20 * 5.0)
    assert Price(1.0, 5.0).cost(usage) * _MILLION == pytest.approx(100 * 1.0 + 20 * 5.0)


def test_a_users_prices_come_before_the_table(instrument: Callable[..., sage_obs.Handle], tmp_path: Path) -> None:
    """A file adds models and changes prices, revisions included, for as long as the layer is on."""
    file = tmp_path / "prices.yaml"
    file.write_text("gpt-4.1: {input: 1, output: 2, cached_read: 0.5}\nMine: {input: 3, output: 4}\n")
    instrument(prices_file=file)
    assert price_of("openai", "gpt-4.1-2025-04-14") == Price(1.0, 2.0, 0.5)
    assert price_of("own", "mine") == Price(3.0, 4.0)
    assert price_of("openai", "gpt-4o") == PRICES["gpt-4o"]
    sage_obs.uninstrument()
    assert price_of("own", "mine") is None


@pytest.mark.parametrize(
    "text", ["m: {input: 1}", "m: {input: 1, output: x}", "m: {input: -1, output: 1}", "m: 3", "m: {input: 1, more: 1}"]
)
def test_a_file_that_has_no_prices_is_an_error_that_names_it(instrument: Callable[..., sage_obs.Handle], tmp_path: Path, text: str) -> None:
    """File and model are in the message, and what a price is."""
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"prices.yaml: `m?` is no price. A model has `input` and `output`"):
        instrument(prices_file=str(file))
