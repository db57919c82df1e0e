"""State in an SQLite file: it outlives the process, and the processes of one machine share it."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from sage_agent.messages import Turn
from sage_agent.state import gcra
from sage_agent.state.base import Budget, Owner, Rate, Reserved, SessionKey, State, StateError, Stored, Taken
from sage_agent.state.keys import digest, owner_of, raw, task_owner, text_of
from sage_agent.state.writer import Work, Writer

T = TypeVar("T")
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS limits (key TEXT PRIMARY KEY, arrival REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS nonces (scope TEXT NOT NULL, nonce TEXT NOT NULL, until REAL NOT NULL, PRIMARY KEY (scope, nonce)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions (owner TEXT NOT NULL, context BLOB NOT NULL, turns TEXT NOT NULL, until REAL NOT NULL,
  PRIMARY KEY (owner, context));
CREATE TABLE IF NOT EXISTS budgets (name TEXT PRIMARY KEY, until REAL NOT NULL, usd REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reservations (call TEXT NOT NULL, name TEXT NOT NULL, usd REAL NOT NULL, period REAL NOT NULL,
  until REAL NOT NULL, PRIMARY KEY (call, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value BLOB NOT NULL, until REAL NOT NULL);
CREATE TABLE IF NOT EXISTS owned_tasks (tenant TEXT NOT NULL, id BLOB NOT NULL, user TEXT NOT NULL, document BLOB NOT NULL,
  version INTEGER NOT NULL, until REAL NOT NULL, PRIMARY KEY (tenant, id));
CREATE INDEX IF NOT EXISTS nonces_until ON nonces (until);
CREATE INDEX IF NOT EXISTS sessions_until ON sessions (until);
CREATE INDEX IF NOT EXISTS reservations_until ON reservations (until);
CREATE INDEX IF NOT EXISTS answers_until ON answers (until);
CREATE INDEX IF NOT EXISTS owned_tasks_until ON owned_tasks (until);
CREATE INDEX IF NOT EXISTS owned_tasks_user ON owned_tasks (user, id);
"""
_SWEPT: Final = {
    "nonces": "scope, nonce",
    "sessions": "owner, context",
    "reservations": "call, name",
    "answers": "key",
    "owned_tasks": "tenant, id",
}
"""What expires, and what tells its rows apart."""
_SWEEP_SECONDS: Final = 10.0
_SWEEP_ROWS: Final = 1000
"""At most so many expired rows of a table go at once, so that nobody waits long for it; where there are more, the next go at once after."""


class SqliteStore:
    """Implements `Store`; runs what the parts below want done, at most `timeout` seconds each. `clock` is in seconds."""

    kind: Final = "sqlite"

    def __init__(self, path: Path, *, timeout: float, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._writer = Writer(path, schema=_SCHEMA)
        self._timeout = timeout
        self._swept = 0.0

    async def open(self) -> None:
        """Make the file where there is none."""
        self._writer.open()

    async def check(self) -> bool:
        """Whether it can be written."""
        try:
            return await self.run(lambda connection: connection.execute("SELECT 1").fetchone() == (1,))
        except StateError:
            return False

    async def close(self) -> None:
        """Finish and let go."""
        self._writer.close()

    def renew(self, url: str) -> None:
        """A file has no password."""

    def connections(self) -> tuple[int, int]:
        """The writer's."""
        return (1, 0) if self._writer.busy else (0, 1)

    async def run(self, work: Work[T]) -> T:
        """Do something whole or not at all; now and then what has expired goes first."""
        now = self.clock()
        if not 0 <= now - self._swept < _SWEEP_SECONDS:
            self._swept = now
            if await self._writer.run(lambda connection: _sweep(connection, now), seconds=self._timeout):
                self._swept = 0.0
        return await self._writer.run(work, seconds=self._timeout)


def _sweep(connection: sqlite3.Connection, now: float) -> bool:
    """Whether there may be more."""
    more = False
    for table, columns in _SWEPT.items():
        expired = f"SELECT {columns} FROM {table} WHERE until <= ? LIMIT {_SWEEP_ROWS}"  # noqa: S608 - our own names
        gone = connection.execute(f"DELETE FROM {table} WHERE ({columns}) IN ({expired})", (now,))  # noqa: S608 - the same
        more = more or gone.rowcount == _SWEEP_ROWS
    connection.execute("DELETE FROM limits WHERE arrival <= ?", (now,))
    connection.execute("DELETE FROM budgets WHERE until <= ?", (now,))
    return more


class SqliteLimits:
    """Implements `Limits`."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def take(self, key: str, rate: Rate, *, cost: int = 1) -> Taken:
        """Take from a limit."""
        name = digest(key)

        def work(connection: sqlite3.Connection) -> Taken:
            now = self._store.clock()
            row = connection.execute("SELECT arrival FROM limits WHERE key = ?", (name,)).fetchone()
            after, taken = gcra.take(now if row is None else row[0], rate, cost=cost, now=now)
            if taken.allowed:
                connection.execute("INSERT OR REPLACE INTO limits VALUES (?, ?)", (name, after))
            return taken

        return await self._store.run(work)


class SqliteNonces:
    """Implements `Nonces`."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def claim(self, scope: str, nonce: str, *, seconds: float) -> bool:
        """Use a nonce up."""

        def work(connection: sqlite3.Connection) -> bool:
            now = self._store.clock()
            statement = """INSERT INTO nonces VALUES (?, ?, ?)
                ON CONFLICT (scope, nonce) DO UPDATE SET until = excluded.until WHERE nonces.until <= ?"""
            return connection.execute(statement, (digest(scope), digest(nonce), now + seconds, now)).rowcount == 1

        return await self._store.run(work)


class SqliteSessions:
    """Implements `Sessions`."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def read(self, key: SessionKey) -> tuple[Turn, ...]:
        """The turns kept."""
        return await self._store.run(lambda connection: _turns(connection, key, self._store.clock()))

    async def append(self, key: SessionKey, turns: Sequence[Turn], *, keep: int, seconds: float) -> None:
        """Add turns."""

        def work(connection: sqlite3.Connection) -> None:
            now = self._store.clock()
            kept = (*_turns(connection, key, now), *turns)[-keep:]
            text = json.dumps([[turn.role, turn.text] for turn in kept])
            connection.execute(
                "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?)", (owner_of(key), raw(key.context_id), text, now + seconds)
            )

        await self._store.run(work)

    async def export(self, tenant: str, user: str) -> dict[str, tuple[Turn, ...]]:
        """Every conversation of a user."""
        owner = owner_of(SessionKey(tenant, user, ""))

        def work(connection: sqlite3.Connection) -> dict[str, tuple[Turn, ...]]:
            rows = connection.execute(
                "SELECT context, turns FROM sessions WHERE owner = ? AND until > ? ORDER BY context", (owner, self._store.clock())
            )
            return {text_of(context): parse_turns(turns) for context, turns in rows}

        return await self._store.run(work)

    async def erase(self, tenant: str, user: str) -> int:
        """Forget a user."""
        owner = owner_of(SessionKey(tenant, user, ""))
        return await self._store.run(lambda connection: connection.execute("DELETE FROM sessions WHERE owner = ?", (owner,)).rowcount)


def _turns(connection: sqlite3.Connection, key: SessionKey, now: float) -> tuple[Turn, ...]:
    statement = "SELECT turns FROM sessions WHERE owner = ? AND context = ? AND until > ?"
    row = connection.execute(statement, (owner_of(key), raw(key.context_id), now)).fetchone()
    return () if row is None else parse_turns(row[0])


def parse_turns(text: str) -> tuple[Turn, ...]:
    """Turns as they were written: a JSON list of pairs."""
    return tuple(Turn(role, said) for role, said in json.loads(text))


class SqliteBudgets:
    """Implements `Budgets`."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def reserve(self, call_id: str, usd: float, budgets: Sequence[Budget], *, seconds: float) -> Reserved:
        """Set money aside."""
        call = digest(call_id)

        def work(connection: sqlite3.Connection) -> Reserved:
            now = self._store.clock()
            if connection.execute("SELECT 1 FROM reservations WHERE call = ?", (call,)).fetchone():
                return Reserved(allowed=True)
            periods = [_period(connection, budget, now) for budget in budgets]
            for budget, (until, spent) in zip(budgets, periods, strict=True):
                if spent + usd > budget.usd:
                    return Reserved(allowed=False, refused_by=budget.name, retry_after=until - now)
            for budget, (until, spent) in zip(budgets, periods, strict=True):
                connection.execute("INSERT OR REPLACE INTO budgets VALUES (?, ?, ?)", (digest(budget.name), until, spent + usd))
                connection.execute(
                    "INSERT INTO reservations VALUES (?, ?, ?, ?, ?)", (call, digest(budget.name), usd, until, now + seconds)
                )
            return Reserved(allowed=True)

        return await self._store.run(work)

    async def settle(self, call_id: str, usd: float) -> None:
        """Replace what was set aside."""

        def work(connection: sqlite3.Connection) -> None:
            rows = connection.execute(
                "DELETE FROM reservations WHERE call = ? AND until > ? RETURNING name, usd, period", (digest(call_id), self._store.clock())
            )
            for name, reserved, period in rows.fetchall():
                connection.execute("UPDATE budgets SET usd = max(0, usd + ?) WHERE name = ? AND until = ?", (usd - reserved, name, period))

        await self._store.run(work)

    async def used(self, budget: Budget) -> float:
        """What was spent and set aside."""
        return await self._store.run(lambda connection: _period(connection, budget, self._store.clock())[1])


def _period(connection: sqlite3.Connection, budget: Budget, now: float) -> tuple[float, float]:
    """When the current period of a budget ends, and what was spent in it."""
    row = connection.execute("SELECT until, usd FROM budgets WHERE name = ? AND until > ?", (digest(budget.name), now)).fetchone()
    return (now + budget.seconds, 0.0) if row is None else (row[0], row[1])


class SqliteCache:
    """Implements `Cache`."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def get(self, key: str) -> bytes | None:
        """What was put."""

        def work(connection: sqlite3.Connection) -> bytes | None:
            row = connection.execute("SELECT value FROM answers WHERE key = ? AND until > ?", (digest(key), self._store.clock())).fetchone()
            return None if row is None else bytes(row[0])

        return await self._store.run(work)

    async def put(self, key: str, value: bytes, *, seconds: float) -> None:
        """Keep a value."""
        row = (digest(key), value, self._store.clock() + seconds)
        await self._store.run(lambda connection: connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", row))

    async def clear(self) -> None:
        """Forget everything."""
        await self._store.run(lambda connection: connection.execute("DELETE FROM answers"))


class SqliteTasks:
    """Implements `Tasks`."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def get(self, owner: Owner, task_id: str) -> Stored | None:
        """A task."""
        tenant, user = task_owner(owner)

        def work(connection: sqlite3.Connection) -> Stored | None:
            statement = "SELECT document, version FROM owned_tasks WHERE tenant = ? AND id = ? AND ? IN ('', user) AND until > ?"
            row = connection.execute(statement, (tenant, raw(task_id), user, self._store.clock())).fetchone()
            return None if row is None else Stored(bytes(row[0]), row[1])

        return await self._store.run(work)

    async def put(self, owner: Owner, task_id: str, document: bytes, *, expected: int, seconds: float) -> bool:
        """Write a task."""
        tenant, user = task_owner(owner)

        def work(connection: sqlite3.Connection) -> bool:
            now = self._store.clock()
            statement = "SELECT version, user FROM owned_tasks WHERE tenant = ? AND id = ? AND until > ?"
            row = connection.execute(statement, (tenant, raw(task_id), now)).fetchone() or (0, user)
            if row != (expected, user):
                return False
            task = (tenant, raw(task_id), user, document, expected + 1, now + seconds)
            connection.execute("INSERT OR REPLACE INTO owned_tasks VALUES (?, ?, ?, ?, ?, ?)", task)
            return True

        return await self._store.run(work)

    async def list(self, owner: Owner, *, limit: int, after: str = "") -> tuple[tuple[str, Stored], ...]:
        """Tasks by id."""
        tenant, user = task_owner(owner)
        whose, of = ("user = ?", user) if user else ("tenant = ?", tenant)

        def work(connection: sqlite3.Connection) -> tuple[tuple[str, Stored], ...]:
            statement = f"SELECT id, document, version FROM owned_tasks WHERE {whose} AND id > ? AND until > ? ORDER BY id LIMIT ?"  # noqa: S608 - our own names
            rows = connection.execute(statement, (of, raw(after), self._store.clock(), limit))
            return tuple((text_of(task_id), Stored(bytes(document), version)) for task_id, document, version in rows)

        return await self._store.run(work)

    async def delete(self, owner: Owner, task_id: str) -> None:
        """Forget a task."""
        tenant, user = task_owner(owner)
        statement = "DELETE FROM owned_tasks WHERE tenant = ? AND id = ? AND ? IN ('', user)"
        await self._store.run(lambda connection: connection.execute(statement, (tenant, raw(task_id), user)))

    async def erase(self, owner: Owner) -> int:
        """Forget a user."""
        _, user = task_owner(owner)
        return await self._store.run(lambda connection: connection.execute("DELETE FROM owned_tasks WHERE user = ?", (user,)).rowcount)


def sqlite_state(path: Path, *, timeout: float, clock: Callable[[], float] = time.time) -> State:
    """State in the file at `path`."""
    store = SqliteStore(path, timeout=timeout, clock=clock)
    return State(
        limits=SqliteLimits(store),
        nonces=SqliteNonces(store),
        sessions=SqliteSessions(store),
        budgets=SqliteBudgets(store),
        cache=SqliteCache(store),
        tasks=SqliteTasks(store),
        store=store,
    )
