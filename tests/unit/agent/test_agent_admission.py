"""Bounded slots and queue."""

from __future__ import annotations

import asyncio

import pytest

from sage_agent.flow.admission import Gate
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
