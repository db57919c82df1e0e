"""Where the model can be asked: a provider at an address, with one or several keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sage_agent.llm.breaker import Breaker
from sage_agent.llm.config import BreakerConfig, LlmConfig
from sage_agent.llm.fallbacks import TargetConfig
from sage_agent.llm.providers.base import Provider
from sage_agent.llm.providers.select import open_providers


class Target:
    """A provider for each key, all of one model, and the breaker of their address. A key that is rate limited stands back."""

    def __init__(self, providers: Sequence[Provider], breaker: Breaker) -> None:
        self.name = providers[0].name
        self.breaker = breaker
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
        self._first = (self._providers.index(provider) + 1) % len(self._providers)

    async def close(self) -> None:
        """Let go of connections."""
        for provider in self._providers:
            await provider.close()


def open_targets(llm: LlmConfig, *, connections: int) -> tuple[Target, ...]:
    """The configured targets, with as many connections to each; those at one address share its breaker."""
    breakers: dict[str, Breaker] = {}
    targets = []
    for one in llm.targets:
        name = f"{one.provider} {one.base_url}".strip()
        breaker = breakers.setdefault(name, Breaker(name, _guarding(one, llm.breaker)))
        targets.append(Target(open_providers(one, llm.scripted, connections=connections), breaker))
    return tuple(targets)


def _guarding(target: TargetConfig, breaker: BreakerConfig) -> BreakerConfig:
    """The embedded provider fails on purpose, and is never left alone."""
    return replace(breaker, enabled=breaker.enabled and target.provider != "scripted")
