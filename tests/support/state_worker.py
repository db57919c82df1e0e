"""Uses a store as fast as it can and says on stdout what was acknowledged: `-m tests.support.state_worker KIND PLACE NAME`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sage_agent.messages import Turn
from sage_agent.state.base import Budget, Rate, SessionKey, State
from sage_agent.state.postgres import Pool, postgres_state
from sage_agent.state.redis import redis_state
from sage_agent.state.sqlite import sqlite_state

RATE = Rate(per_second=0.001, burst=500)
BUDGET = Budget("shared", 300.0, 3600.0)
NONCES = 1000


def open_state(kind: str, place: str) -> State:
    """The store of this kind."""
    match kind:
        case "sqlite":
            return sqlite_state(Path(place), timeout=10.0)
        case "postgres":
            return postgres_state(place, pool=Pool(8, 1, 60.0), timeout=10.0)
    return redis_state(place, connections=8, timeout=10.0)


async def work(state: State, name: str) -> None:
    """Take limits, claim nonces, spend and talk, eight at a time, and print each success once it is one."""
    numbers = iter(range(NONCES))

    async def one() -> None:
        for number in numbers:
            said = []
            if (await state.limits.take("shared", RATE)).allowed:
                said.append("limit")
            if await state.nonces.claim("shared", str(number), seconds=600):
                said.append(f"nonce {number}")
            if (await state.budgets.reserve(f"{name} {number}", 1.0, [BUDGET], seconds=600)).allowed:
                said.append("usd")
            await state.sessions.append(SessionKey("", name, "c"), [Turn("user", str(number))], keep=NONCES, seconds=600)
            said.append(f"turn {number}")
            sys.stdout.write("".join(f"{word}\n" for word in said))
            sys.stdout.flush()

    await asyncio.gather(*(one() for _ in range(8)))


async def main() -> None:
    """Work until everything is done."""
    state = open_state(sys.argv[1], sys.argv[2])
    await state.store.open()
    sys.stdout.write("open\n")
    sys.stdout.flush()
    await work(state, sys.argv[3])
    await state.store.close()


if __name__ == "__main__":
    asyncio.run(main())
