"""The one place that tries again: the next key, the next target, then after a wait all of them, as long as there is time."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, TypeVar

import sage_obs
from sage_agent.llm.breaker import State
from sage_agent.llm.limiter import Limiter
from sage_agent.llm.providers.base import CrowdedError, OutOfTimeError, Provider, ProviderError
from sage_agent.llm.targets import Target
from sage_agent.problems import RETRY_SOON_SECONDS
from sage_obs.conventions import BREAKER_OPEN, LLM_FALLBACKS, LLM_RETRIES, ErrorType

T = TypeVar("T")
_AGAIN: Final = (ErrorType.RATE_LIMITED, ErrorType.UNAVAILABLE)
"""What may go better elsewhere or later. Anything else would fail again, or has taken its time."""
_TARGETS_FAULT: Final = frozenset({ErrorType.UNAVAILABLE, ErrorType.SERVER_ERROR, ErrorType.TIMEOUT})
"""What a breaker counts. A target that limits a key's rate works."""
_FIRST_WAIT: Final = 0.5
"""Seconds; each wait is twice the one before."""


class Retries:
    """Tries targets in their order, `rounds` times more at most. `max_wait` is the longest pause in seconds, 0 for none.

    `jitter` gives numbers from 0 to 1.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        max_wait: float,
        rounds: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.targets = tuple(targets)
        self._max_wait = max_wait
        self._rounds = rounds
        self._sleep = sleep
        self._jitter = jitter

    @property
    def degraded(self) -> bool:
        """Whether calls to a target are held back."""
        return any(target.breaker.state is not State.CLOSED for target in self.targets)

    async def run(self, attempt: Callable[[Provider], Awaitable[T]], *, deadline: float) -> T:
        """The result of the first attempt that succeeds; none begins after `deadline`, in the event loop's time.

        Raises ProviderError: of an attempt that is not to be repeated, of the last one where there is no time for another, and of
        kind unavailable where no target admits a call.
        """
        target = self.targets[0]
        first = target.first
        era = target.breaker.admit()
        if era is None:
            return await self._go_on(attempt, deadline=deadline)
        try:
            return await _judged(target, first, era, self._in_turn(0, first, attempt, deadline) if target.limiter else attempt(first))
        except ProviderError as exc:
            if exc.begun or exc.error_type not in _AGAIN:
                raise
            return await self._go_on(attempt, deadline=deadline, failed=(first, exc))

    async def _go_on(
        self, attempt: Callable[[Provider], Awaitable[T]], *, deadline: float, failed: tuple[Provider, ProviderError] | None = None
    ) -> T:
        """Try everything in turn, except what has `failed` already, the first of all, in the first round."""
        trail = _Trail()
        for number in itertools.count():
            failures: list[ProviderError] = []
            trail.start_over()
            if failed is not None:
                trail.go(self.targets, 0)
                failures.append(failed[1])
                trail.reason = failed[1].error_type.value
            for place, provider, era in self._admitted(without=failed and failed[0]):
                trail.go(self.targets, place)
                try:
                    return await _judged(self.targets[place], provider, era, self._in_turn(place, provider, attempt, deadline))
                except ProviderError as exc:
                    if exc.begun or exc.error_type not in _AGAIN:
                        raise
                    failures.append(exc)
                    trail.reason = exc.error_type.value
            failed = None
            if not failures or all(target.breaker.wait for target in self.targets):
                raise self._held_back()
            await self._pause(failures, number, deadline)
        raise AssertionError  # pragma: no cover - counting never ends

    def expose(self) -> None:
        """Put what can be counted on /metrics before it happens, or its first increase is lost."""
        for target in self.targets:
            target.breaker.expose()
            if target.limiter is not None:
                target.limiter.expose()
            for reason in _AGAIN:
                sage_obs.series(LLM_RETRIES, target.name, reason.value).add(0)
        for one, other in itertools.combinations(self.targets, 2):
            for word in (*(reason.value for reason in _AGAIN), BREAKER_OPEN):
                sage_obs.series(LLM_FALLBACKS, one.name, other.name, word).add(0)

    async def close(self) -> None:
        """Let go of connections."""
        for target in self.targets:
            await target.close()

    def _admitted(self, *, without: Provider | None) -> Iterator[tuple[int, Provider, int]]:
        """Every key of every target, by its place, whose breaker lets a call through when it comes to that; one was asked already."""
        for place, target in enumerate(self.targets):
            for provider in target.in_turn():
                if provider is not without and (era := target.breaker.admit()) is not None:
                    yield place, provider, era

    async def _in_turn(self, place: int, provider: Provider, attempt: Callable[[Provider], Awaitable[T]], deadline: float) -> T:
        """Make an attempt when the target bears one more call. Raises ProviderError of kind rate_limited where that takes too long."""
        limiter = self.targets[place].limiter
        if limiter is None:
            return await attempt(provider)
        turn, limited = limiter.enter(), None
        if turn is None:
            turn = await self._wait_for(limiter, deadline, last=place + 1 == len(self.targets))
        try:
            result = await attempt(provider)
            limited = False
        except ProviderError as exc:
            limited = True if exc.error_type is ErrorType.RATE_LIMITED else None
            raise
        finally:
            limiter.leave(turn, limited=limited)
        return result

    async def _wait_for(self, limiter: Limiter, deadline: float, *, last: bool) -> int:
        patience = self._max_wait if last else min(self._max_wait, _FIRST_WAIT)
        try:
            return await limiter.wait(deadline=min(deadline, asyncio.get_running_loop().time() + patience))
        except TimeoutError:
            raise CrowdedError from None

    async def _pause(self, failures: Sequence[ProviderError], number: int, deadline: float) -> None:
        """Wait for what asked for the least. Raises the last failure where no time would be left, or it was tried often enough."""
        backoff = min(_FIRST_WAIT * 2.0 ** min(number, 16), self._max_wait) * (1 + self._jitter()) / 2
        asked = min(backoff if one.retry_after is None else one.retry_after for one in failures)
        seconds = min(max(asked, backoff), self._max_wait)
        if not self._max_wait or number >= self._rounds or asyncio.get_running_loop().time() + seconds >= deadline:
            raise failures[-1]
        with sage_obs.waiting():
            await self._sleep(seconds)

    def _held_back(self) -> ProviderError:
        wait = max(RETRY_SOON_SECONDS, math.ceil(min(target.breaker.wait for target in self.targets)))
        return ProviderError(ErrorType.UNAVAILABLE, "every provider has failed too often and is left alone for now", retry_after=wait)


class _Trail:
    """Where the attempts of one request have gone, by place, and why the last one failed."""

    def __init__(self) -> None:
        self.reason = BREAKER_OPEN
        self._at = 0
        self._tried = False

    def start_over(self) -> None:
        """The first target is next."""
        self._at = 0

    def go(self, targets: Sequence[Target], place: int) -> None:
        """Count what this step is: on to a later target, or once more to the same."""
        if place > self._at:
            sage_obs.series(LLM_FALLBACKS, targets[self._at].name, targets[place].name, self.reason).add()
        elif self._tried:
            sage_obs.series(LLM_RETRIES, targets[place].name, self.reason).add()
        self._at, self._tried = place, True


async def _judged(target: Target, provider: Provider, era: int, attempt: Awaitable[T]) -> T:
    """Wait for an attempt, and let the target's breaker know how it went."""
    try:
        result = await attempt
    except (OutOfTimeError, CrowdedError):
        target.breaker.release(era)
        raise
    except ProviderError as exc:
        target.breaker.record(era, failed=exc.error_type in _TARGETS_FAULT)
        if exc.error_type is ErrorType.RATE_LIMITED:
            target.stand_back(provider)
        raise
    except BaseException:
        target.breaker.release(era)
        raise
    target.breaker.record(era, failed=False)
    return result
