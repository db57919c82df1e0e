"""Open a platform by name."""

from __future__ import annotations

from pathlib import Path

from sage_obs.errors import ConfigError
from sage_obs.platforms.base import Platform
from sage_obs.platforms.ledger import Ledger
from sage_obs.platforms.local.driver import LocalPlatform


def platform_root(state: Path, service: str) -> Path:
    """Where the local platform of `service` keeps its folders under a state folder."""
    return state / "platform" / service


def open_platform(kind: str, state: Path, *, service: str) -> Platform:
    """The driver of this kind; `auto` means the only one there is, `local`. Raises ConfigError for an unknown kind."""
    if kind not in ("auto", "local"):
        raise ConfigError(f"Unknown platform `{kind}`.", hint="Known: auto, local.")
    return LocalPlatform(platform_root(state, service), service=service)


def open_ledger(state: Path, *, service: str) -> Ledger:
    """The release ledger of `service`."""
    return Ledger(platform_root(state, service) / "ledger.jsonl")
