"""Providers with their addresses and keys, as they are written in a configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from sage_obs.settings import parse_choice, parse_text

PROVIDERS: Final = ("scripted", "openai", "anthropic", "gemini")
"""The model providers this version has adapters for."""
_KEYS: Final = ("provider", "model", "base_url", "api_key")


@dataclass(frozen=True, slots=True)
class TargetConfig:
    """A model of a provider, its address, and the keys to it in the order they are used."""

    provider: str
    model: str
    base_url: str = ""
    api_keys: tuple[str, ...] = field(default=(), repr=False)


def parse_url(value: object) -> str:
    """An http or https address without its trailing slash, or nothing."""
    text = parse_text(value).strip().rstrip("/")
    if text and not text.startswith(("http://", "https://")):
        raise ValueError("expected an address that starts with http:// or https://")
    return text


def parse_keys(value: object) -> tuple[str, ...]:
    """Keys as a list, or separated by commas; each counts once."""
    keys = value if isinstance(value, list) else parse_text(value).split(",")
    return tuple(dict.fromkeys(key for key in (parse_text(one).strip() for one in keys) if key))


def parse_fallbacks(value: object) -> tuple[TargetConfig, ...]:
    """A list of mappings, or the same as JSON. What is wrong is said without the values, among which are keys."""
    if isinstance(value, str):
        try:
            value = json.loads(value or "[]")
        except json.JSONDecodeError:
            raise ValueError("expected a JSON list of objects") from None
    if not isinstance(value, list):
        raise ValueError("expected a list")
    return tuple(_fallback(one, f"fallback {number}") for number, one in enumerate(value, 1))


def _fallback(given: Any, where: str) -> TargetConfig:
    if not isinstance(given, dict) or "provider" not in given:
        raise ValueError(f"{where}: expected a mapping with `provider`")
    unknown = [str(key) for key in given if key not in _KEYS]
    if unknown:
        raise ValueError(f"{where}: unknown key `{unknown[0]}`; there are {', '.join(_KEYS)}")
    said = {key: "" if value is None else value for key, value in given.items()}
    try:
        return TargetConfig(
            parse_choice(*PROVIDERS)(said["provider"]),
            parse_text(said.get("model", "")),
            parse_url(said.get("base_url", "")),
            parse_keys(said.get("api_key", "")),
        )
    except ValueError as exc:
        raise ValueError(f"{where}: {exc}") from None
