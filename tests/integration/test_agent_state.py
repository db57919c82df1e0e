"""Every store keeps the same promises: in memory, in a file, and in real databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from sage_agent.messages import Turn
from sage_agent.state.base import Budget, Rate, Reserved, SessionKey, State, StateError
from sage_agent.state.memory import MemoryLimits, memory_state
from sage_agent.state.postgres import Pool, postgres_state
from sage_agent.state.redis import redis_state
from sage_agent.state.sqlite import sqlite_state
from tests.support.databases import postgres, redis_server
from tests.support.ports import free_port

_KINDS = ("memory", "sqlite", "postgres", "redis")
Open = Callable[[], State]


@pytest.fixture(scope="module")
def _servers() -> Iterator[dict[str, str]]:
    with postgres() as database, redis_server() as redis:
        yield {"postgres": database, "redis": redis}


@pytest.fixture(params=_KINDS)
def open_state(request: pytest.FixtureRequest, tmp_path: Path, _servers: dict[str, str]) -> Open:
    """Opens state, again the same one where it outlives a process."""
    match request.param:
        case "memory":
            return memory_state
        case "sqlite":
            return lambda: sqlite_state(tmp_path / "folder" / "state.db", timeout=5.0)
        case "postgres":
            return lambda: postgres_state(_servers["postgres"], pool=Pool(5, 1, 60.0), timeout=5.0)
        case _:
            return lambda: redis_state(_servers["redis"], connections=5, timeout=5.0)


@asynccontextmanager
async def _opened(open_state: Open) -> AsyncIterator[State]:
    state = open_state()
    await state.store.open()
    try:
        yield state
    finally:
        await state.store.close()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name of the test's own, as databases are shared."""
    return str(request.node.name)


def test_a_limit_admits_its_burst_and_no_more(open_state: Open, name: str) -> None:
    """Of fifty that ask at the same time, as many get in as the burst has."""

    async def main() -> None:
        async with _opened(open_state) as state:
            taken = await asyncio.gather(*(state.limits.take(name, Rate(0.01, 7)) for _ in range(50)))
            assert sum(one.allowed for one in taken) == 7
            assert all(0 <= one.remaining < 7 for one in taken)
            refused = next(one for one in taken if not one.allowed)
            assert 90 < refused.retry_after <= 100
            assert not (await state.limits.take(name, Rate(0.01, 7), cost=8)).allowed
            assert (await state.limits.take(f"{name} of another", Rate(0.01, 7))).remaining == 6

    asyncio.run(main())


def test_a_limit_comes_back(open_state: Open, name: str) -> None:
    """After `retry_after` seconds there is enough again."""

    async def main() -> None:
        async with _opened(open_state) as state:
            rate = Rate(20.0, 1)
            assert (await state.limits.take(name, rate)).allowed
            refused = await state.limits.take(name, rate)
            assert not refused.allowed
            await asyncio.sleep(refused.retry_after + 0.01)
            assert (await state.limits.take(name, rate)).allowed

    asyncio.run(main())


async def _put_clock_back(state: State, name: str) -> None:
    """Move what is kept of limits an hour ahead, which is how a clock that was put back sees it."""
    store: Any = state.store
    match store.kind:
        case "memory":
            values = cast("MemoryLimits", state.limits)._arrivals._values
            values[name] = (values[name][0] + 3600, values[name][1] + 3600)
        case "sqlite":
            await store.run(lambda connection: connection.execute("UPDATE limits SET arrival = arrival + 3600"))
        case "postgres":
            await store.count("UPDATE sage_agent_limits SET arrival = arrival + 3600")
        case "redis":
            key = store.key("limit", name)
            await store.client.set(key, float(await store.client.get(key)) + 3600)


def test_a_clock_that_was_put_back_keeps_nobody_out(open_state: Open, name: str) -> None:
    """Who has used up a limit before the clock of the store went back an hour has a whole one after it, not one in an hour."""

    async def main() -> None:
        async with _opened(open_state) as state:
            rate = Rate(1.0, 3)
            for _ in range(3):
                assert (await state.limits.take(name, rate)).allowed
            assert not (await state.limits.take(name, rate)).allowed
            await _put_clock_back(state, name)
            assert [(await state.limits.take(name, rate)).allowed for _ in range(4)] == [True, True, True, False]

    asyncio.run(main())


def test_a_nonce_is_used_once(open_state: Open, name: str) -> None:
    """Of many who claim a nonce at the same time one gets it; in another scope it is another; later it may come again."""

    async def main() -> None:
        async with _opened(open_state) as state:
            claims = await asyncio.gather(*(state.nonces.claim(name, "n", seconds=60) for _ in range(20)))
            assert sum(claims) == 1
            assert await state.nonces.claim(f"{name} else", "n", seconds=60)
            assert await state.nonces.claim(name, "short", seconds=0.05)
            await asyncio.sleep(0.1)
            assert await state.nonces.claim(name, "short", seconds=60)

    asyncio.run(main())


def test_conversations_are_their_owners(open_state: Open, name: str) -> None:
    """Turns come back in order, the oldest go first, and nobody reads another's."""

    async def main() -> None:
        async with _opened(open_state) as state:
            mine = SessionKey("t", name, "context \x00 \U0001f600")
            assert await state.sessions.read(mine) == ()
            for number in range(4):
                turns = [Turn("user", f"q{number} \x00"), Turn("assistant", f"a{number}")]
                await state.sessions.append(mine, turns, keep=6, seconds=60)
            assert [turn.text for turn in await state.sessions.read(mine)] == ["q1 \x00", "a1", "q2 \x00", "a2", "q3 \x00", "a3"]
            for other in (SessionKey("u", name, mine.context_id), SessionKey("t", f"{name}2", mine.context_id), SessionKey("t", name, "c")):
                assert await state.sessions.read(other) == ()

    asyncio.run(main())


def test_nothing_of_a_conversation_is_lost_where_many_write(open_state: Open, name: str) -> None:
    """Thirty appends at the same time are thirty turns."""

    async def main() -> None:
        async with _opened(open_state) as state:
            key = SessionKey("", name, "c")
            await asyncio.gather(*(state.sessions.append(key, [Turn("user", str(n))], keep=100, seconds=60) for n in range(30)))
            assert sorted(int(turn.text) for turn in await state.sessions.read(key)) == list(range(30))

    asyncio.run(main())


def test_a_user_is_exported_and_erased(open_state: Open, name: str) -> None:
    """All conversations of a user, and of no other, can be had and forgotten; expired ones are in neither."""

    async def main() -> None:
        async with _opened(open_state) as state:
            for user, context, seconds in ((name, "a", 60), (name, "b", 60), (name, "gone", 0.05), (f"{name}2", "a", 60)):
                await state.sessions.append(SessionKey("t", user, context), [Turn("user", context)], keep=9, seconds=seconds)
            await asyncio.sleep(0.1)
            assert await state.sessions.export("t", name) == {"a": (Turn("user", "a"),), "b": (Turn("user", "b"),)}
            assert await state.sessions.erase("t", name) >= 2
            assert await state.sessions.export("t", name) == {}
            assert list(await state.sessions.export("t", f"{name}2")) == ["a"]

    asyncio.run(main())


def test_a_budget_is_never_exceeded_by_what_is_set_aside(open_state: Open, name: str) -> None:
    """Of twenty calls at the same time as many are admitted as the tighter of two budgets has money for."""

    async def main() -> None:
        async with _opened(open_state) as state:
            tight, wide = Budget(f"{name} tight", 1.0, 60.0), Budget(f"{name} wide", 5.0, 3600.0)
            reserved = await asyncio.gather(*(state.budgets.reserve(f"{name} {n}", 0.3, [wide, tight], seconds=60) for n in range(20)))
            assert sum(one.allowed for one in reserved) == 3
            refused = next(one for one in reserved if not one.allowed)
            assert refused.refused_by == tight.name
            assert 50 < refused.retry_after <= 60
            assert await state.budgets.used(wide) == pytest.approx(0.9)
            assert await state.budgets.used(tight) == pytest.approx(0.9)

    asyncio.run(main())


def test_what_was_set_aside_is_settled_once(open_state: Open, name: str) -> None:
    """The price replaces the estimate; saying either again, or of an unknown call, changes nothing."""

    async def main() -> None:
        async with _opened(open_state) as state:
            budget = Budget(name, 1.0, 60.0)
            for _ in range(2):
                assert await state.budgets.reserve(f"{name} call", 0.9, [budget], seconds=60) == Reserved(allowed=True)
            assert await state.budgets.used(budget) == pytest.approx(0.9)
            for _ in range(2):
                await state.budgets.settle(f"{name} call", 0.25)
            await state.budgets.settle("unknown", 5.0)
            assert await state.budgets.used(budget) == pytest.approx(0.25)

    asyncio.run(main())


def test_a_budget_begins_anew(open_state: Open, name: str) -> None:
    """After its period nothing is spent; what is settled then belongs to the period before; what nobody settles stays spent."""

    async def main() -> None:
        async with _opened(open_state) as state:
            budget = Budget(name, 1.0, 0.3)
            assert (await state.budgets.reserve(f"{name} old", 1.0, [budget], seconds=60)).allowed
            assert not (await state.budgets.reserve(f"{name} more", 0.1, [budget], seconds=60)).allowed
            await asyncio.sleep(0.35)
            assert await state.budgets.used(budget) == 0.0
            longer = Budget(name, 1.0, 60.0)
            assert (await state.budgets.reserve(f"{name} new", 0.5, [longer], seconds=0.05)).allowed
            await state.budgets.settle(f"{name} old", 0.0)
            await asyncio.sleep(0.1)
            await state.budgets.settle(f"{name} new", 0.0)
            assert await state.budgets.used(longer) == pytest.approx(0.5)

    asyncio.run(main())


def test_an_answer_is_kept_for_its_time(open_state: Open, name: str) -> None:
    """Bytes come back until they expire or everything is forgotten."""

    async def main() -> None:
        async with _opened(open_state) as state:
            await state.cache.put(f"{name} a", b"\x00\xff", seconds=60)
            await state.cache.put(f"{name} b", b"b", seconds=0.05)
            await asyncio.sleep(0.1)
            assert await state.cache.get(f"{name} a") == b"\x00\xff"
            assert await state.cache.get(f"{name} b") is None
            await state.cache.clear()
            assert await state.cache.get(f"{name} a") is None

    asyncio.run(main())


def test_a_task_is_written_by_who_knows_its_version(open_state: Open, name: str) -> None:
    """Of many who write the same version one does; another owner sees nothing; lists go by id."""

    async def main() -> None:
        async with _opened(open_state) as state:
            tasks = state.tasks
            assert await tasks.put(name, "t1", b"one", expected=0, seconds=60)
            written = await asyncio.gather(*(tasks.put(name, "t1", b"%d" % n, expected=1, seconds=60) for n in range(10)))
            assert sum(written) == 1
            found = await tasks.get(name, "t1")
            assert found is not None
            assert found.version == 2
            assert await tasks.get(f"{name} else", "t1") is None
            assert not await tasks.put(name, "t2", b"", expected=3, seconds=60)
            for task_id in ("t3", "t2"):
                assert await tasks.put(name, task_id, task_id.encode(), expected=0, seconds=60)
            assert await tasks.put(name, "gone", b"", expected=0, seconds=0.05)
            await asyncio.sleep(0.1)
            assert [task_id for task_id, _ in await tasks.list(name, limit=9)] == ["t1", "t2", "t3"]
            assert [task_id for task_id, _ in await tasks.list(name, limit=1, after="t1")] == ["t2"]
            assert await tasks.put(name, "gone", b"again", expected=0, seconds=60)
            await tasks.delete(name, "t2")
            assert [task_id for task_id, _ in await tasks.list(name, limit=9)] == ["gone", "t1", "t3"]

    asyncio.run(main())


def test_names_may_hold_anything(open_state: Open, name: str) -> None:
    """Zeros, halves of surrogate pairs, wildcards and kilobytes in what a caller names are kept apart and come back as they were."""
    odd = ["\x00", "\ud800", "%_*?[a]", "{tag}", "x" * 5000, "x" * 5001, "'; --", "\U0001f600"]

    async def main() -> None:
        async with _opened(open_state) as state:
            for one in odd:
                key, budget = f"{name} {one}", Budget(f"{name} {one}", 1.0, 60.0)
                assert (await state.limits.take(key, Rate(0.01, 1))).allowed
                assert await state.nonces.claim(name, one, seconds=60)
                assert await state.nonces.claim(key, "n", seconds=60)
                await state.sessions.append(SessionKey(one, name, one), [Turn("user", one)], keep=5, seconds=60)
                assert await state.sessions.export(one, name) == {one: (Turn("user", one),)}
                assert (await state.budgets.reserve(key, 0.6, [budget], seconds=60)).allowed
                await state.budgets.settle(key, 0.5)
                assert await state.budgets.used(budget) == pytest.approx(0.5)
                await state.cache.put(key, b"v", seconds=60)
                assert await state.cache.get(key) == b"v"
                assert await state.tasks.put(name, one, b"d", expected=0, seconds=60)
            assert [task_id for task_id, _ in await state.tasks.list(name, limit=20)] == sorted(odd)

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_a_store_that_is_not_there_is_an_error_in_time_and_without_a_secret(kind: str) -> None:
    """Nobody waits longer than the timeout, and the password is in no message."""
    port = free_port()

    async def main() -> str:
        if kind == "postgres":
            state = postgres_state(f"postgresql://u:hunter2@127.0.0.1:{port}/db", pool=Pool(2, 0, 60.0), timeout=1.0)
        else:
            state = redis_state(f"redis://:hunter2@127.0.0.1:{port}/0", connections=2, timeout=1.0)
        async with asyncio.timeout(4.0):
            with pytest.raises(StateError) as error:
                await state.store.open()
            assert not await state.store.check()
            await state.store.close()
        return error.value.message

    message = asyncio.run(main())
    assert "hunter2" not in message
    assert f"127.0.0.1:{port}" in message


def test_a_file_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """It says which file."""
    (tmp_path / "file").touch()

    async def main() -> None:
        with pytest.raises(StateError, match="cannot be opened"):
            await sqlite_state(tmp_path / "file" / "state.db", timeout=1.0).store.open()

    asyncio.run(main())


def test_a_file_is_its_owners_and_what_is_erased_is_gone_from_it(tmp_path: Path) -> None:
    """Nobody else reads the database, and no page of it holds a conversation that was erased."""
    path = tmp_path / "folder" / "state.db"

    async def main() -> None:
        state = sqlite_state(path, timeout=5.0)
        await state.store.open()
        await state.sessions.append(SessionKey("t", "u", "c"), [Turn("user", "a-secret-confession")], keep=5, seconds=60)
        await state.sessions.erase("t", "u")
        assert path.stat().st_mode & 0o077 == 0
        assert (path.parent / "state.db-wal").stat().st_mode & 0o077 == 0
        await state.store.close()

    asyncio.run(main())
    assert path.parent.stat().st_mode & 0o077 == 0
    assert all(b"confession" not in file.read_bytes() for file in path.parent.iterdir())
