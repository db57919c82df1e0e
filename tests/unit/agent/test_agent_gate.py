"""Bounded slots and queue."""

from __future__ import annotations

import asyncio

import pytest

from sage_agent.gate import Gate
from sage_agent.problems import QueueFullError


def _soon() -> float:
    return asyncio.get_running_loop().time() + 5.0


def test_a_full_queue_refuses_at_once() -> None:
    """With one place and one waiting, the third is refused without waiting."""

    async def scenario() -> int:
        gate = Gate(1, queue=1)
        await gate.acquire(deadline=_soon())
        second = asyncio.ensure_future(gate.acquire(deadline=_soon()))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await gate.acquire(deadline=_soon())
        gate.release()
        await second
        return gate.waiting

    assert asyncio.run(scenario()) == 0


def test_the_longest_waiting_comes_first() -> None:
    """Places are given in order of arrival."""

    async def scenario() -> list[int]:
        gate, order = Gate(1), list[int]()

        async def visit(number: int) -> None:
            await gate.acquire(deadline=_soon())
            order.append(number)
            await asyncio.sleep(0)
            gate.release()

        await asyncio.gather(*(visit(number) for number in range(5)))
        return order

    assert asyncio.run(scenario()) == [0, 1, 2, 3, 4]


def test_waiting_ends_at_the_deadline_and_frees_its_place_in_the_queue() -> None:
    """Who waited too long leaves the queue, and the gate works as before."""

    async def scenario() -> int:
        gate = Gate(1, queue=1)
        await gate.acquire(deadline=_soon())
        with pytest.raises(TimeoutError):
            await gate.acquire(deadline=asyncio.get_running_loop().time())
        waiting = gate.waiting
        gate.release()
        await gate.acquire(deadline=_soon())
        return waiting

    assert asyncio.run(scenario()) == 0


def test_cancelled_waiters_take_no_place() -> None:
    """A caller that leaves while waiting does not keep the next one out."""

    async def scenario() -> None:
        gate = Gate(1)
        await gate.acquire(deadline=_soon())
        waiter = asyncio.ensure_future(gate.acquire(deadline=_soon()))
        await asyncio.sleep(0)
        waiter.cancel()
        gate.release()
        await asyncio.wait_for(gate.acquire(deadline=_soon()), 1.0)

    asyncio.run(scenario())


def test_nobody_begins_to_wait_who_would_wait_too_long() -> None:
    """Once departures are known to be a second apart, a third in the queue with two seconds' patience is told at once, and how long."""

    async def scenario() -> tuple[int, int | None]:
        gate = Gate(1, queue=100, patience=2.0)
        loop = asyncio.get_running_loop()
        gate._apart = 1.0
        await gate.acquire(deadline=_soon())
        waiting = [asyncio.ensure_future(gate.acquire(deadline=_soon())) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError) as refused:
            await gate.acquire(deadline=loop.time() + 5.0)
        for _ in range(3):
            gate.release()
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        return gate.inside, refused.value.retry_after

    assert asyncio.run(scenario()) == (0, 3)


def test_a_burst_is_let_wait_while_nothing_is_known() -> None:
    """The first to come may fill the queue."""

    async def scenario() -> int:
        gate = Gate(1, queue=100, patience=0.001)
        await gate.acquire(deadline=_soon())
        waiting = [asyncio.ensure_future(gate.acquire(deadline=_soon())) for _ in range(50)]
        await asyncio.sleep(0)
        count = gate.waiting
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return count

    assert asyncio.run(scenario()) == 50
