"""The configured guards, put together."""

from __future__ import annotations

from typing import Protocol

from sage_agent.security.certificates import Certificates
from sage_agent.security.config import SecurityConfig
from sage_agent.security.guard import CallerGuard, Identification, RateGuard
from sage_agent.security.keys import ApiKeys
from sage_agent.state.base import State
from sage_agent.web.guard import Guard, OpenGuard


class Opened(Protocol):
    """What has to be got before anybody can be known by it."""

    async def open(self) -> None:
        """Get it. Raises ConfigError."""


class Doors:
    """What stands between callers and the routes: `guard`; None where everybody may come in as often as they like."""

    def __init__(self, guard: Guard | None, rates: RateGuard | None, tokens: Opened | None, keys: ApiKeys | None = None) -> None:
        self.guard = guard
        self._rates = rates
        self._tokens = tokens
        self._keys = keys

    def renew(self, config: SecurityConfig) -> None:
        """Know callers by the keys that the settings have by now."""
        if self._keys is not None:
            self._keys.renew(config.api_keys)

    def expose(self) -> None:
        """Put what can be counted on /metrics."""
        if self._rates is not None:
            self._rates.expose()

    async def open(self) -> None:
        """Get what callers are known by. Raises ConfigError."""
        if self._tokens is not None:
            await self._tokens.open()


def build_doors(config: SecurityConfig, state: State) -> Doors:
    """Put the guards together. Raises ConfigError for a file of keys that cannot be read."""
    tokens = None
    if config.jwt is not None:
        from sage_agent.security.tokens import Tokens

        tokens = Tokens(config.jwt)
    guard: Guard | None = None
    keys = None
    if config.identifies:
        keys = ApiKeys(config.api_keys, config.api_keys_file) if config.api_keys or config.api_keys_file else None
        guard = CallerGuard(Identification(Certificates(config.allow) if config.allow else None, tokens, keys))
    rates = None
    if config.rate is not None:
        rates = RateGuard(guard or OpenGuard(), state.limits, config.rate, proxies=config.proxies, refuse_blind=config.refuse_blind)
    return Doors(rates or guard, rates, tokens, keys)
