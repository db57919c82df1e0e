"""Workers that lease from one limit in a real Redis."""

from __future__ import annotations

import asyncio
import time

from sage_agent.state.base import Rate
from sage_agent.state.leases import LeasedLimits
from sage_agent.state.redis import redis_state
from tests.support.databases import redis_server

_RATE = Rate(per_second=200.0, burst=150)
_SECONDS = 0.2


def test_workers_admit_no_more_than_the_limit_and_ask_for_it_seldom() -> None:
    """Four that are asked as fast as they can admit as much as the limit has and no more, by far fewer questions than answers."""

    async def main(url: str) -> tuple[list[float], int, int]:
        states = [redis_state(url, connections=4, timeout=5.0) for _ in range(4)]
        workers = [LeasedLimits(state.limits, seconds=_SECONDS) for state in states]
        moments: list[float] = []
        answers, end = 0, time.monotonic() + 2.0

        async def ask(worker: LeasedLimits) -> None:
            nonlocal answers
            while (began := time.monotonic()) < end:
                taken = await worker.take("k", _RATE)
                answers += 1
                if taken.allowed:
                    moments.append(began)
                await asyncio.sleep(0 if taken.allowed else 0.005)

        await asyncio.gather(*(ask(worker) for worker in workers for _ in range(8)))
        client = states[0].store.client  # type: ignore[attr-defined]
        asked = (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]
        for state in states:
            await state.store.close()
        return sorted(moments), answers, asked

    with redis_server() as url:
        moments, answers, asked = asyncio.run(main(url))
    whole = moments[-1] - moments[0]
    assert len(moments) <= _RATE.burst + _RATE.per_second * (whole + 0.05)
    assert len(moments) >= 0.7 * _RATE.per_second * whole
    for first in range(0, len(moments), 10):
        for last in range(first, len(moments), 10):
            assert last - first <= _RATE.burst + _RATE.per_second * (moments[last] - moments[first] + 0.05)
    assert asked < answers / 5
