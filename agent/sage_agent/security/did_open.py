"""Signed requests put together, where they are asked for; nothing of it is loaded where they are not."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sage_agent.security.did_config import DidConfig
from sage_agent.state.base import Nonces
from sage_agent.web.guard import Guard
from sage_obs.errors import ConfigError, SageObsError

if TYPE_CHECKING:
    from sage_agent.security.did_guard import DidGuard

_PACKAGES: Final = ("http_message_signatures", "cryptography", "Crypto")


class DidMissingError(SageObsError, ImportError):
    """Signatures were asked for, and their packages are not installed."""


def need_packages(what: str) -> None:
    """Raise DidMissingError where signatures cannot be made or verified here."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise DidMissingError(f"{what} needs {', '.join(missing)}.", hint="Install it: pip install 'sage-obs[did]'")


def open_did(config: DidConfig, nonces: Nonces, inner: Guard) -> DidGuard | None:
    """What verifies signed requests, around another guard; None where none are. Raises DidMissingError and ConfigError."""
    if config.mode == "off":
        return None
    need_packages(f"security.did.mode: {config.mode}")
    from sage_agent.security.did_guard import DidGuard
    from sage_agent.security.fetching import Fetcher
    from sage_agent.security.registry import FileRegistry
    from sage_agent.security.resolver import Resolver

    if config.ca_file and not Path(config.ca_file).is_file():
        raise ConfigError(f"There is no file {config.ca_file}.", hint="Correct security.did.ca_file.")
    fetcher = Fetcher(timeout=config.fetch_timeout, private=config.allow_private, ca_file=config.ca_file)
    registry = None if config.registry is None else FileRegistry(config.registry)
    resolver = Resolver(fetcher, registry=registry, origins=config.sage_origins, ttl=config.ttl)
    return DidGuard(config, resolver, nonces, inner)
