"""Where the model can be asked: a provider at an address, with one or several keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from sage_agent.llm.breaker import Breaker
from sage_agent.llm.config import BreakerConfig, LlmConfig
from sage_agent.llm.fallbacks import TargetConfig
from sage_agent.llm.limiter import Limiter
from sage_agent.llm.providers.base import Provider
from sage_agent.llm.providers.select import open_providers


@runtime_checkable
class Keyed(Protocol):
    """A provider that is asked with a key."""

    def with_key(self, api_key: str) -> Provider:
        """The same with another key."""


class Target:
    """A provider for each key, all of one model, and the breaker of their address. A key that is rate limited stands back.

    `limiter` bounds the calls to it; None for any number.
    """

    def __init__(self, providers: Sequence[Provider], breaker: Breaker, limiter: Limiter | None = None) -> None:
        self.name = providers[0].name
        self.breaker = breaker
        self.limiter = limiter
        self._providers = tuple(providers)
        self._first = 0

    @property
    def first(self) -> Provider:
        """The provider with the key whose turn it is."""
        return self._providers[self._first]

    def in_turn(self) -> Iterator[Provider]:
        """Each provider once, beginning with the key whose turn it is."""
        first = self._first
        yield from (*self._providers[first:], *self._providers[:first])

    def stand_back(self, provider: Provider) -> None:
        """Let the key after this provider's come first from now on."""
        if provider in self._providers:  # its key may have been replaced meanwhile
            self._first = (self._providers.index(provider) + 1) % len(self._providers)

    def renew(self, keys: Sequence[str]) -> None:
        """Ask with these keys from now on; calls that have begun end as they began."""
        provider = self._providers[0]
        if isinstance(provider, Keyed):
            self._providers = tuple(provider.with_key(key) for key in keys or ("",))
            self._first = 0

    async def close(self) -> None:
        """Let go of connections."""
        for provider in self._providers:
            await provider.close()


def open_targets(llm: LlmConfig, *, connections: int) -> tuple[Target, ...]:
    """The configured targets, with as many connections to each; those at one address share its breaker.

    A rate is limited by model and key, and so is each target's own.
    """
    breakers: dict[str, Breaker] = {}
    targets = []
    for one in llm.targets:
        name = f"{one.provider} {one.base_url}".strip()
        breaker = breakers.setdefault(name, Breaker(name, _guarding(one, llm.breaker)))
        limiter = Limiter(f"{name} {one.model}", connections) if llm.limiter and one.provider != "scripted" else None
        targets.append(Target(open_providers(one, llm.scripted, connections=connections), breaker, limiter))
    return tuple(targets)


def renew_targets(targets: Sequence[Target], llm: LlmConfig) -> None:
    """Ask with the keys that the configuration has by now."""
    for target, config in zip(targets, llm.targets, strict=False):
        target.renew(config.api_keys)


def _guarding(target: TargetConfig, breaker: BreakerConfig) -> BreakerConfig:
    """The embedded provider fails on purpose, and is never left alone."""
    return replace(breaker, enabled=breaker.enabled and target.provider != "scripted")
