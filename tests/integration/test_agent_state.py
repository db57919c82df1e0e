"""Every store keeps the same promises: in memory, in a file, and in real databases."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import pytest

from sage_agent.messages import Turn
from sage_agent.state.base import Budget, Owner, Rate, Reserved, SessionKey, State, StateError
from sage_agent.state.keys import owner_of, task_owner
from sage_agent.state.memory import MemoryCache, MemoryLimits, MemorySessions, MemoryTasks, memory_state
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


def test_a_call_that_is_refused_begins_no_period(open_state: Open, name: str) -> None:
    """The period is counted from the first that is spent on, not from the first that asked for too much."""

    async def main() -> None:
        async with _opened(open_state) as state:
            budget, other = Budget(name, 1.0, 60.0), Budget(f"{name} other", 5.0, 60.0)
            assert not (await state.budgets.reserve(f"{name} dear", 2.0, [other, budget], seconds=60)).allowed
            await asyncio.sleep(0.5)
            assert (await state.budgets.reserve(f"{name} cheap", 1.0, [budget, other], seconds=60)).allowed
            for whose in (budget, other):
                refused = await state.budgets.reserve(f"{name} more", 4.5, [whose], seconds=60)
                assert (refused.allowed, refused.retry_after > 59.7) == (False, True)

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
            tasks, mine, other = state.tasks, Owner(name, "a"), Owner(name, "b")
            assert await tasks.put(mine, "t1", b"one", expected=0, seconds=60)
            written = await asyncio.gather(*(tasks.put(mine, "t1", b"%d" % n, expected=1, seconds=60) for n in range(10)))
            assert sum(written) == 1
            found = await tasks.get(mine, "t1")
            assert found is not None
            assert found.version == 2
            assert await tasks.get(other, "t1") is None
            assert not await tasks.put(mine, "t2", b"", expected=3, seconds=60)
            for task_id in ("t3", "t2"):
                assert await tasks.put(mine, task_id, task_id.encode(), expected=0, seconds=60)
            assert await tasks.put(mine, "gone", b"", expected=0, seconds=0.05)
            await asyncio.sleep(0.1)
            assert [task_id for task_id, _ in await tasks.list(mine, limit=9)] == ["t1", "t2", "t3"]
            assert [task_id for task_id, _ in await tasks.list(mine, limit=1, after="t1")] == ["t2"]
            assert await tasks.put(other, "gone", b"again", expected=0, seconds=60)
            await tasks.delete(other, "t2")
            await tasks.delete(mine, "t2")
            assert [task_id for task_id, _ in await tasks.list(mine, limit=9)] == ["t1", "t3"]
            assert [task_id for task_id, _ in await tasks.list(other, limit=9)] == ["gone"]

    asyncio.run(main())


def test_tasks_are_their_users_and_can_be_read_by_the_tenant(open_state: Open, name: str) -> None:
    """A tenant reads everybody's and writes nobody's; another user can neither read, write nor delete one; a user is forgotten alone."""

    async def main() -> None:
        async with _opened(open_state) as state:
            tasks, whole = state.tasks, Owner(name)
            ann, bob, other = Owner(name, "ann"), Owner(name, "bob"), Owner(f"{name} 2", "ann")
            for owner, task_id in ((ann, "t1"), (bob, "t2"), (ann, "t3"), (other, "t1")):
                assert await tasks.put(owner, task_id, task_id.encode(), expected=0, seconds=60)
            for expected in (0, 1):
                assert not await tasks.put(bob, "t1", b"his", expected=expected, seconds=60)
            await tasks.delete(bob, "t1")
            assert [task_id for task_id, _ in await tasks.list(whole, limit=9)] == ["t1", "t2", "t3"]
            assert [task_id for task_id, _ in await tasks.list(whole, limit=1, after="t1")] == ["t2"]
            read = [await tasks.get(owner, "t1") for owner in (whole, ann, bob, other)]
            assert [one.document if one else None for one in read] == [b"t1", b"t1", None, b"t1"]
            assert await tasks.erase(ann) == 2
            assert [task_id for task_id, _ in await tasks.list(whole, limit=9)] == ["t2"]
            assert await tasks.get(other, "t1") is not None

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
                assert await state.tasks.put(Owner("t", name), one, b"d", expected=0, seconds=60)
            assert [task_id for task_id, _ in await state.tasks.list(Owner("t", name), limit=20)] == sorted(odd)

    asyncio.run(main())


_COUNT: Final = """
SELECT (SELECT count(*) FROM sage_agent_sessions) + (SELECT count(*) FROM sage_agent_answers)
  + (SELECT count(*) FROM sage_agent_owned_tasks)
  + (SELECT count(*) FROM sage_agent_nonces) + (SELECT count(*) FROM sage_agent_reservations)
"""


async def _kept(state: State, tenant: str) -> int:
    """How many entries of what this module puts there are, expired or not, indexes among them."""
    store: Any = state.store
    match store.kind:
        case "memory":
            users = cast("MemorySessions", state.sessions)._users._values
            tenants = cast("MemoryTasks", state.tasks)._tenants._values
            inner = [one._values for _, one in users.values()] + [one._values for _, one in tenants.values()]
            answers = cast("MemoryCache", state.cache)._values._values
            return len(answers) + len(users) + sum(len(one) for one in inner)
        case "sqlite":
            return int(await store.run(lambda connection: connection.execute(_COUNT.replace("sage_agent_", "")).fetchone()[0]))
        case "postgres":
            return int((await store.one(_COUNT))[0])
    indexes = [store.keys("tasks") + one for one in task_owner(Owner(tenant, "u"))] + [
        store.keys("tasks-over") + task_owner(Owner(tenant))[0],
        store.key("conversations", owner_of(SessionKey(tenant, "u", ""))),
    ]
    return int(sum([await store.client.zcard(one) for one in indexes]))


def test_what_has_expired_does_not_stay(open_state: Open, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much it is: of thousands that came and went little is left where a user goes on, in no table and no index."""
    for module in ("sqlite", "postgres"):
        monkeypatch.setattr(f"sage_agent.state.{module}._SWEEP_SECONDS", 0.5)
        monkeypatch.setattr(f"sage_agent.state.{module}._SWEEP_ROWS", 10)
    numbers = iter(range(1_000_000))

    async def come(state: State, count: int) -> None:
        """So many of everything, each for a hundredth of a second."""
        for number in itertools.islice(numbers, count):
            one, budget = str(number), Budget(f"{name} {number}", 1.0, 60.0)
            await asyncio.gather(
                state.cache.put(f"{name} {one}", b"v", seconds=0.01),
                state.nonces.claim(name, one, seconds=0.01),
                state.budgets.reserve(f"{name} {one}", 0.1, [budget], seconds=0.01),
                state.sessions.append(SessionKey(name, "u", one), [Turn("user", "x")], keep=5, seconds=0.01),
                state.tasks.put(Owner(name, "u"), one, b"d", expected=0, seconds=0.01),
            )

    async def main() -> None:
        async with _opened(open_state) as state:
            await state.sessions.append(SessionKey(name, "u", "stays"), [Turn("user", "x")], keep=5, seconds=60)
            assert await state.tasks.put(Owner(name, "u"), "stays", b"d", expected=0, seconds=60)
            await asyncio.gather(*(come(state, 50) for _ in range(16)))
            async with asyncio.timeout(30):
                while await _kept(state, name) > 500:
                    await come(state, 10)
                    await asyncio.sleep(0.02)

            assert [task_id for task_id, _ in await state.tasks.list(Owner(name), limit=2000) if not task_id.isdigit()] == ["stays"]
            assert "stays" in await state.sessions.export(name, "u")

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
