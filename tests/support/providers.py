"""Providers that do what they are told, targets made of them, and an event loop whose time passes only when everybody waits."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from sage_agent.flow.calls import ModelCalls
from sage_agent.llm.breaker import Breaker
from sage_agent.llm.config import BreakerConfig
from sage_agent.llm.providers.base import Completion, Delta, Prompt, Provider, ProviderError, Usage
from sage_agent.llm.retries import Retries
from sage_agent.llm.targets import Target

T = TypeVar("T")
BREAKER: Final = BreakerConfig(enabled=True, failure_share=0.5, min_calls=4, window=30.0, cooldown=15.0)
NEVER: Final = BreakerConfig(enabled=False, failure_share=1.0, min_calls=1, window=1.0, cooldown=1.0)


@dataclass
class Told:
    """A provider that takes `seconds` for each call, fails with its errors one after the other and then answers with its model's name.

    A stream fails after `pieces` pieces. `asked` is when it was asked, in the event loop's time.
    """

    model: str = "m"
    errors: list[ProviderError] = field(default_factory=list)
    seconds: float = 0.0
    pieces: int = 0
    name: str = "told"
    asked: list[float] = field(default_factory=list)

    async def complete(self, prompt: Prompt) -> Completion:  # noqa: ARG002 - the seam's
        """Fail, or answer."""
        await self._begin()
        if self.errors:
            raise self.errors.pop(0)
        return Completion(self.model, Usage(1, 1))

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:  # noqa: ARG002 - the seam's
        """The same in pieces."""
        await self._begin()
        yield Delta("", Usage(1, 0))
        if self.errors:
            for _ in range(self.pieces):
                yield Delta("half")
            raise self.errors.pop(0)
        yield Delta(self.model)

    async def close(self) -> None:
        """Nothing to do."""

    async def _begin(self) -> None:
        self.asked.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.seconds)


def target_of(*providers: Provider, breaker: BreakerConfig = NEVER, name: str = "", clock: Callable[[], float] = lambda: 0.0) -> Target:
    """A target with a key for each provider."""
    return Target(providers, Breaker(name or providers[0].name, breaker, clock=clock))


def calls_to(*providers: Provider) -> ModelCalls:
    """Calls to a target for each provider, without pauses."""
    return ModelCalls(retries_of([target_of(one) for one in providers], max_wait=0.0), timeout=5.0)


def retries_of(targets: Sequence[Target], *, max_wait: float = 30.0, rounds: int = 1000) -> Retries:
    """Retries whose pauses are as long as they can be."""
    return Retries(targets, max_wait=max_wait, rounds=rounds, jitter=lambda: 1.0)


class _Skipping(selectors.DefaultSelector):
    """Waits for nothing, and remembers how long it would have."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise AssertionError("everybody waits, and nobody for the time to pass")
        self.passed += max(timeout, 0.0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that never sleeps: its clock jumps to when the next timer is due."""

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        """Seconds since it was made."""
        return self._skipping.passed


def in_virtual_time(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run it on a virtual loop."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work())
