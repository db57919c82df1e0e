"""Workers that lease from one limit never admit more than it does, in any stretch of time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from sage_agent.state.base import Rate, Taken
from sage_agent.state.leases import LeasedLimits
from sage_agent.state.memory import MemoryLimits

_PAUSES = st.one_of(st.sampled_from([0.0, 0.0, 0.001, 0.18, 0.45, 5.0]), st.floats(0.0, 0.4))
_STEPS = st.lists(st.tuples(_PAUSES, st.sampled_from([0, 0, 0, 1, 2]), st.sampled_from([1, 1, 5, 12, 60])), min_size=1, max_size=40)
"""Some seconds pass, then one of the workers is asked so many times at once."""
_SPREE = [*[(0.0, 0, 12), (0.0, 2, 12)] * 6, (60.0, 0, 1), (0.0, 2, 1), (0.18, 1, 60), (0.0, 1, 60), (0.0, 0, 60), (0.0, 2, 60)]
"""Two are asked until they take many at a time and keep most of them; another uses up what has come back; then the two are asked again."""


class Counting:
    """A limit that is asked over a network: others come between."""

    def __init__(self, limits: MemoryLimits) -> None:
        self.asked = 0
        self._limits = limits

    async def take(self, key: str, rate: Rate, *, cost: int = 1) -> Taken:
        """Ask it."""
        self.asked += 1
        await asyncio.sleep(0)
        taken = await self._limits.take(key, rate, cost=cost)
        await asyncio.sleep(0)
        return taken


def _admitted(steps: Sequence[tuple[float, int, int]], rate: Rate, seconds: float) -> tuple[list[float], Counting]:
    """When anybody was admitted."""
    now, moments = [1000.0], list[float]()
    store = Counting(MemoryLimits(lambda: now[0]))

    async def main() -> None:
        workers = [LeasedLimits(store, seconds=seconds, clock=lambda: now[0]) for _ in range(3)]
        for passed, worker, count in steps:
            now[0] += passed
            taken = await asyncio.gather(*(workers[worker].take("k", rate) for _ in range(count)))
            assert all(one.retry_after > 0 for one in taken if not one.allowed)
            assert all(0 <= one.remaining < rate.burst for one in taken)
            moments.extend(now[0] for one in taken if one.allowed)

    asyncio.run(main())
    return moments, store


@given(_STEPS, st.floats(0.5, 200.0), st.integers(1, 120), st.sampled_from([0.0, 0.2, 0.5, 2.0]))
@example(_SPREE, 100.0, 100, 0.2)
@example([(passed + 0.25 * (passed == 0.18), worker, count) for passed, worker, count in _SPREE], 100.0, 100, 0.2)
def test_no_stretch_of_time_has_more_than_the_limit(
    steps: list[tuple[float, int, int]], per_second: float, burst: int, seconds: float
) -> None:
    """Between any two admissions there are at most the burst and what came back meanwhile, however many workers keep however much."""
    moments, _ = _admitted(steps, Rate(per_second, burst), seconds)
    for first, begin in enumerate(moments):
        for last in range(first, len(moments)):
            assert last - first + 1 <= burst + per_second * (moments[last] - begin) + 1e-6


@given(_STEPS, st.floats(0.5, 60.0), st.integers(1, 40))
def test_without_keeping_any_as_many_are_admitted_as_by_the_store_itself(
    steps: list[tuple[float, int, int]], per_second: float, burst: int
) -> None:
    """Asking for several together, and repeating refusals, takes nothing from anybody."""
    rate, now, plain = Rate(per_second, burst), [1000.0], 0
    limits = MemoryLimits(lambda: now[0])
    for passed, _, count in steps:
        now[0] += passed
        plain += sum(asyncio.run(_each(limits, rate, count)))
    moments, store = _admitted(steps, rate, 0.0)
    assert len(moments) == plain
    assert store.asked <= sum(count for _, _, count in steps) + 2 * len(steps)


async def _each(limits: MemoryLimits, rate: Rate, count: int) -> list[bool]:
    return [(await limits.take("k", rate)).allowed for _ in range(count)]
