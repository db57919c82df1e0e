"""Several processes on one store, one of them killed in the middle."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from sage_agent.messages import Turn
from sage_agent.state import postgres as postgres_module
from sage_agent.state.base import SessionKey, State, StateError
from sage_agent.state.postgres import Pool, postgres_state
from sage_agent.state.redis import redis_state
from tests.support.databases import postgres, redis_server
from tests.support.ports import free_port
from tests.support.slow import Proxy, proxy_to
from tests.support.state_worker import BUDGET, RATE, open_state

_ROOT = Path(__file__).parents[2]


@contextmanager
def _place(kind: str, tmp_path: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield str(tmp_path / "state.db")
    elif kind == "postgres":
        with postgres() as url:
            yield url
    else:
        with redis_server() as url:
            yield url


def _start(kind: str, place: str, name: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen([sys.executable, "-m", "tests.support.state_worker", kind, place, name], stdout=out, cwd=_ROOT)


def _acknowledged(log: Path) -> list[str]:
    return log.read_text().rpartition("\n")[0].splitlines()


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "redis"])
def test_processes_share_limits_nonces_money_and_turns_and_a_killed_one_loses_nothing(kind: str, tmp_path: Path) -> None:
    """Two processes take from one limit and one budget, no nonce is had twice, and what was acknowledged before a kill -9 is there."""
    logs = [tmp_path / "a.log", tmp_path / "b.log"]
    with _place(kind, tmp_path) as place:
        workers = [_start(kind, place, name, log) for name, log in zip("ab", logs, strict=True)]
        try:
            deadline = time.monotonic() + 60
            while sum(word.startswith("turn") for word in _acknowledged(logs[0])) < 100:
                assert time.monotonic() < deadline, _acknowledged(logs[0])[-3:]
                time.sleep(0.01)
            workers[0].send_signal(signal.SIGKILL)
            workers[0].wait()
            assert workers[1].wait(90) == 0
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        said = [word for log in logs for word in _acknowledged(log)]
        kinds = Counter(word.partition(" ")[0] for word in said)
        nonces = [word for word in said if word.startswith("nonce")]
        assert len(nonces) == len(set(nonces)) > 100

        async def look() -> tuple[int, float, list[list[str]]]:
            state = open_state(kind, place)
            await state.store.open()
            turns = [[turn.text for turn in await state.sessions.read(SessionKey("", name, "c"))] for name in "ab"]
            left = (await state.limits.take("shared", RATE)).remaining
            used = await state.budgets.used(BUDGET)
            await state.store.close()
            return left, used, turns

        left, used, turns = asyncio.run(look())
        for log, kept in zip(logs, turns, strict=True):
            told = {word.partition(" ")[2] for word in _acknowledged(log) if word.startswith("turn")}
            assert told <= set(kept)
            assert len(kept) == len(set(kept))
        in_flight = 8
        assert RATE.burst - in_flight <= kinds["limit"] <= RATE.burst
        assert left <= in_flight
        assert BUDGET.usd - in_flight <= kinds["usd"] <= used <= BUDGET.usd


@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_a_database_that_comes_back_is_used_again(kind: str) -> None:
    """While the server is gone every operation is an error in time; once it is back they work without a restart of ours."""
    port = free_port()
    serve = {"postgres": postgres, "redis": redis_server}[kind]

    async def main() -> None:
        with serve(port=port) as url:
            state = (
                postgres_state(url, pool=Pool(3, 1, 60.0), timeout=1.0)
                if kind == "postgres"
                else redis_state(url, connections=3, timeout=1.0)
            )
            await state.store.open()
            assert await state.nonces.claim("s", "one", seconds=60)
        began = time.monotonic()
        with pytest.raises(StateError):
            await state.nonces.claim("s", "two", seconds=60)
        assert not await state.store.check()
        assert time.monotonic() - began < 5
        with serve(port=port):
            for _ in range(200):
                if await state.store.check():
                    break
                await asyncio.sleep(0.1)
            if kind == "postgres":
                await state.store.open()
            assert await state.nonces.claim("s", "three", seconds=60)
            await state.store.close()

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_a_store_that_stops_answering_holds_nobody_longer_than_its_timeout(kind: str) -> None:
    """Many operations on a server behind a dead network all fail in time, the loop goes on meanwhile, and they work again after."""
    serve = {"postgres": postgres, "redis": redis_server}[kind]
    timeout = 1.0

    async def failing(state: State, number: int) -> float:
        began = time.monotonic()
        with pytest.raises(StateError):
            await state.limits.take(f"slow {number}", RATE)
        return time.monotonic() - began

    async def longest_pause(until: asyncio.Event) -> float:
        longest, before = 0.0, time.monotonic()
        while not until.is_set():
            await asyncio.sleep(0.01)
            longest, before = max(longest, time.monotonic() - before), time.monotonic()
        return longest

    async def main(url: str) -> None:
        async with proxy_to(urlsplit(url).port or 0) as proxy:
            address = urlsplit(url)._replace(netloc=f"tester@127.0.0.1:{proxy.port}" if kind == "postgres" else f"127.0.0.1:{proxy.port}")
            state = (
                postgres_state(address.geturl(), pool=Pool(4, 2, 60.0), timeout=timeout)
                if kind == "postgres"
                else redis_state(address.geturl(), connections=4, timeout=timeout)
            )
            try:
                await exercise(state, proxy)
            finally:
                await state.store.close()

    async def exercise(state: State, proxy: Proxy) -> None:
        await state.store.open()
        assert (await state.limits.take("slow", RATE)).allowed
        proxy.flowing.clear()
        done = asyncio.Event()
        pause = asyncio.create_task(longest_pause(done))
        took = await asyncio.gather(*(failing(state, number) for number in range(20)))
        assert not await state.store.check()
        done.set()
        assert max(took) < timeout + 0.5
        assert await pause < 0.5
        proxy.flowing.set()
        for _ in range(50):
            if await state.store.check():
                break
            await asyncio.sleep(0.1)
        assert (await state.limits.take("slow again", RATE)).allowed

    with serve() as url:
        asyncio.run(main(url))


def test_postgres_has_no_more_connections_than_it_may_and_none_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask at once `max_open_conns` is the most, unused ones go down to `max_idle_conns`, and an old one is replaced."""
    monkeypatch.setattr(postgres_module, "_IDLE_SECONDS", 0.4)
    seen = "SELECT pid FROM pg_stat_activity WHERE application_name = 'sage-agent' ORDER BY pid"

    async def main(url: str) -> None:
        state = postgres_state(url, pool=Pool(3, 1, 1.5), timeout=10.0)
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as watcher:

            async def pids() -> set[int]:
                return {row[0] for row in await (await watcher.execute(seen)).fetchall()}

            await state.store.open()
            try:
                work = [state.sessions.append(SessionKey("", "", str(n)), [Turn("user", "x")], keep=5, seconds=60) for n in range(200)]
                working = asyncio.gather(*work)
                most: set[int] = set()
                while not working.done():
                    now = await pids()
                    assert len(now) <= 3
                    most = max(most, now, key=len)
                assert len(most) == 3
                for _ in range(100):
                    if len(await pids()) == 1:
                        break
                    await asyncio.sleep(0.05)
                assert len(await pids()) == 1
                for _ in range(60):
                    assert await state.store.check()
                    if not await pids() & most:
                        break
                    await asyncio.sleep(0.05)
                assert not await pids() & most
            finally:
                await state.store.close()

    with postgres() as url:
        asyncio.run(main(url))


def test_ten_replicas_may_start_at_the_same_time_on_an_empty_database() -> None:
    """One makes the tables, the others wait for it; none fails."""

    async def main(url: str) -> None:
        states = [postgres_state(url, pool=Pool(2, 1, 60.0), timeout=10.0) for _ in range(10)]
        try:
            await asyncio.gather(*(state.store.open() for state in states))
            taken = await asyncio.gather(*(state.limits.take("n", RATE) for state in states))
            assert sorted(one.remaining for one in taken) == list(range(RATE.burst - 10, RATE.burst))
        finally:
            await asyncio.gather(*(state.store.close() for state in states))

    with postgres() as url:
        asyncio.run(main(url))
