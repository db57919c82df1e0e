"""Signed requests, as read from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_agent.security.did_options import DidCaller
from sage_obs.errors import ConfigError


@dataclass(frozen=True, slots=True)
class DidConfig:
    """Whether requests are signed and by whom. `max_age`, `fetch_timeout` and `ttl` (of documents; 0 for none kept) are in seconds."""

    mode: str
    callers: tuple[DidCaller, ...]
    own_urls: tuple[str, ...]
    max_age: float
    registry: Path | None
    sage_origins: Mapping[str, int]
    allow_private: bool
    ca_file: str
    fetch_timeout: float
    ttl: float


def read_did(plain: Mapping[str, Any]) -> DidConfig:
    """Read the settings by argument name. Raises ConfigError where signatures are asked for and nobody's would count."""
    if plain["did_mode"] != "off" and not plain["did_callers"]:
        raise ConfigError(
            f"security.did.mode is {plain['did_mode']}, and security.did.callers is empty: no signature would count.",
            hint='Name whose do, as {"did": "did:web:agents.example:*", "tenant": "acme", "role": "operator"}; "*" is everybody.',
        )
    return DidConfig(
        mode=plain["did_mode"],
        callers=plain["did_callers"],
        own_urls=plain["did_own_urls"],
        max_age=plain["did_max_age"],
        registry=Path(plain["did_registry"]) if plain["did_registry"] else None,
        sage_origins=plain["did_sage_origins"],
        allow_private=plain["did_allow_private"],
        ca_file=plain["did_ca_file"],
        fetch_timeout=plain["did_fetch_timeout"],
        ttl=plain["cache_ttl"] if plain["did_cache"] else 0.0,
    )
