"""State in PostgreSQL, for several replicas: every operation is one transaction, by the database's clock."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sage_agent.messages import Turn
from sage_agent.state import gcra
from sage_agent.state.base import Budget, Owner, Rate, Reserved, SessionKey, State, StateError, Stored, Taken
from sage_agent.state.bounded import Bounded
from sage_agent.state.config import unreadable_address
from sage_agent.state.keys import digest, owner_of, raw, task_owner, text_of
from sage_agent.state.sqlite import parse_turns

T = TypeVar("T")
_LOCK: Final = 0x5A6E_0B50
"""Of whoever makes the tables, so that replicas that start together do so one after the other."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS sage_agent_limits (key text PRIMARY KEY, arrival float8 NOT NULL);
CREATE TABLE IF NOT EXISTS sage_agent_nonces (key text PRIMARY KEY, until float8 NOT NULL);
CREATE TABLE IF NOT EXISTS sage_agent_sessions (owner text, context bytea, turns text NOT NULL, until float8 NOT NULL,
  PRIMARY KEY (owner, context));
CREATE TABLE IF NOT EXISTS sage_agent_budgets (name text PRIMARY KEY, until float8 NOT NULL, usd float8 NOT NULL);
CREATE TABLE IF NOT EXISTS sage_agent_reservations (call text, name text, usd float8 NOT NULL, period float8 NOT NULL,
  until float8 NOT NULL, PRIMARY KEY (call, name));
CREATE TABLE IF NOT EXISTS sage_agent_answers (key text PRIMARY KEY, value bytea NOT NULL, until float8 NOT NULL);
CREATE TABLE IF NOT EXISTS sage_agent_owned_tasks (tenant text, id bytea, owner text NOT NULL, document bytea NOT NULL,
  version int NOT NULL, until float8 NOT NULL, PRIMARY KEY (tenant, id));
CREATE INDEX IF NOT EXISTS sage_agent_nonces_until ON sage_agent_nonces (until);
CREATE INDEX IF NOT EXISTS sage_agent_answers_until ON sage_agent_answers (until);
CREATE INDEX IF NOT EXISTS sage_agent_sessions_until ON sage_agent_sessions (until);
CREATE INDEX IF NOT EXISTS sage_agent_reservations_until ON sage_agent_reservations (until);
CREATE INDEX IF NOT EXISTS sage_agent_owned_tasks_until ON sage_agent_owned_tasks (until);
CREATE INDEX IF NOT EXISTS sage_agent_owned_tasks_owner ON sage_agent_owned_tasks (owner, id);
"""
_EXPIRING: Final = {
    **dict.fromkeys(("nonces", "sessions", "reservations", "answers", "owned_tasks", "budgets"), "until"),
    "limits": "arrival",
}
"""When a row of a table has expired, by the column that says so."""
_SWEEP_SECONDS: Final = 10.0
_SWEEP_ROWS: Final = 1000
_IDLE_SECONDS = 10.0
"""After so long without need for it a connection beyond those that may be idle is closed."""
_NOW: Final = "(SELECT extract(epoch FROM clock_timestamp())::float8)"
_BEGUN: Final = f"""greatest((SELECT now FROM clock),
  CASE WHEN l.arrival - (SELECT now FROM clock) <= %(most)s + {gcra.STEPPED_SECONDS} THEN l.arrival END)"""  # noqa: S608 - our own names
_TAKE: Final = f"""
WITH clock AS MATERIALIZED (SELECT extract(epoch FROM clock_timestamp())::float8 AS now),
taken AS (
  INSERT INTO sage_agent_limits AS l (key, arrival) SELECT %(key)s, now + %(asked)s FROM clock WHERE %(asked)s <= %(most)s
  ON CONFLICT (key) DO UPDATE SET arrival = {_BEGUN} + %(asked)s WHERE {_BEGUN} + %(asked)s - (SELECT now FROM clock) <= %(most)s
  RETURNING arrival)
SELECT now, (SELECT arrival FROM taken) FROM clock
"""  # noqa: S608 - our own names
_MOMENT: Final = f"SELECT now, arrival FROM {_NOW} AS clock(now) LEFT JOIN sage_agent_limits ON key = %(key)s"  # noqa: S608 - our own names
_CLAIM: Final = f"""
INSERT INTO sage_agent_nonces AS n (key, until) VALUES (%(key)s, {_NOW} + %(seconds)s)
ON CONFLICT (key) DO UPDATE SET until = excluded.until WHERE n.until <= {_NOW}
"""  # noqa: S608 - the same


_PERIODS: Final = f"""
WITH clock AS MATERIALIZED (SELECT now FROM {_NOW} AS clock(now))
INSERT INTO sage_agent_budgets AS b (name, until, usd)
  SELECT name, now + seconds, 0 FROM clock, unnest(%(names)s::text[], %(periods)s::float8[]) AS asked(name, seconds) ORDER BY name
ON CONFLICT (name) DO UPDATE SET
  until = CASE WHEN b.until > (SELECT now FROM clock) THEN b.until ELSE excluded.until END,
  usd = CASE WHEN b.until > (SELECT now FROM clock) THEN b.usd ELSE 0 END
RETURNING name, (SELECT now FROM clock), until, usd
"""  # noqa: S608 - our own names
"""The periods that are under way, begun where there are none, and nobody else's until the transaction ends; locked in the order of their
names, as everywhere, so that no two wait for each other."""
_RESERVED: Final = "SELECT 1 FROM sage_agent_reservations WHERE call = %(call)s LIMIT 1"
_UNBEGUN: Final = "DELETE FROM sage_agent_budgets WHERE name = ANY(%(names)s) AND usd = 0"
"""Periods that began for a call which was refused: they begin with the first that is spent on."""
_SET_ASIDE: Final = f"""
WITH made AS (
  INSERT INTO sage_agent_reservations (call, name, usd, period, until)
    SELECT %(call)s, name, %(usd)s, until, {_NOW} + %(seconds)s FROM sage_agent_budgets WHERE name = ANY(%(names)s)
  ON CONFLICT (call, name) DO NOTHING RETURNING name)
UPDATE sage_agent_budgets AS b SET usd = b.usd + %(usd)s FROM made WHERE b.name = made.name
"""  # noqa: S608 - our own names


@dataclass(frozen=True, slots=True)
class Pool:
    """Connections to keep: at most `most` open, `idle` of them when there is nothing to do, none older than `lifetime` seconds."""

    most: int
    idle: int
    lifetime: float


class PostgresStore:
    """Implements `Store` on the database at `url`; no operation takes more than `timeout` seconds."""

    kind: Final = "postgres"

    def __init__(self, url: str, *, pool: Pool, timeout: float) -> None:
        from psycopg_pool import AsyncConnectionPool

        self._url = url
        self._place = _place(url)
        self._timeout = timeout
        self._sweeper: asyncio.Task[None] | None = None
        self._bounded = Bounded(timeout)
        milliseconds = max(1, round(timeout * 1000))
        self._pool: Any = AsyncConnectionPool(
            lambda: self._url,
            open=False,
            min_size=min(pool.idle, pool.most),
            max_size=pool.most,
            max_lifetime=pool.lifetime,
            max_idle=_IDLE_SECONDS,
            timeout=timeout,
            reconnect_timeout=0.0,
            check=AsyncConnectionPool.check_connection,
            name="sage-agent",
            kwargs={
                "autocommit": True,
                "application_name": "sage-agent",
                "connect_timeout": max(2, round(timeout)),
                "options": f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}",
                "keepalives_idle": 30,
                "tcp_user_timeout": milliseconds,
            },
        )

    async def open(self) -> None:
        """Connect, and make the tables. Raises StateError."""
        await self._pool.open()
        await self.run(_make_tables)
        self._sweeper = asyncio.create_task(self._keep_swept())

    async def check(self) -> bool:
        """Whether it answers."""
        try:
            await self.one("SELECT 1")
        except StateError:
            return False
        return True

    async def close(self) -> None:
        """Let go of the connections."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])
        await self._bounded.close()
        await self._pool.close(timeout=self._timeout)

    def renew(self, url: str) -> None:
        """Connect with another user or password; what is connected stays so until its time is over. Raises ConfigError."""
        from psycopg.conninfo import make_conninfo

        said = {name: value for name, value in _read(url).items() if name in {"user", "password"}}
        self._url = make_conninfo(self._url, **said)

    def connections(self) -> tuple[int, int]:
        """Those of the pool."""
        stats = self._pool.get_stats()
        idle = stats.get("pool_available", 0)
        return max(0, stats.get("pool_size", 0) - idle), idle

    async def run(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """What `work` returns, which is given a cursor in a transaction. Raises StateError."""
        try:
            return await self._bounded.run(self._transact(work))
        except TimeoutError:
            raise StateError(f"PostgreSQL at {self._place} did not answer within {self._timeout:g} s.") from None

    async def _transact(self, work: Callable[[Any], Awaitable[T]]) -> T:
        import psycopg
        import psycopg_pool

        try:
            async with self._pool.connection() as connection, connection.transaction(), connection.cursor() as cursor:
                return await work(cursor)
        except (psycopg.Error, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed, OSError, TimeoutError) as exc:
            raise StateError(f"PostgreSQL at {self._place} cannot be asked ({type(exc).__name__}).") from exc

    async def one(self, statement: str, arguments: Any = None) -> Any:
        """The first row of what a statement gives, None where it gives none. Raises StateError."""
        rows = await self.all(statement, arguments)
        return rows[0] if rows else None

    async def all(self, statement: str, arguments: Any = None) -> list[Any]:
        """Every row. Raises StateError."""

        async def work(cursor: Any) -> list[Any]:
            await cursor.execute(statement, arguments)
            return list(await cursor.fetchall()) if cursor.description else []

        return await self.run(work)

    async def count(self, statement: str, arguments: Any = None) -> int:
        """How many rows a statement changed. Raises StateError."""

        async def work(cursor: Any) -> int:
            await cursor.execute(statement, arguments)
            return int(cursor.rowcount)

        return await self.run(work)

    async def sweep(self) -> None:
        """Forget what has expired, a thousand rows at a time; replicas that do so together share the work. Raises StateError."""
        for table, column in _EXPIRING.items():
            expired = f"SELECT ctid FROM sage_agent_{table} WHERE {column} <= {_NOW} LIMIT {_SWEEP_ROWS} FOR UPDATE SKIP LOCKED"  # noqa: S608 - our own names
            statement = f"DELETE FROM sage_agent_{table} WHERE ctid IN ({expired})"  # noqa: S608 - the same
            while await self.count(statement) == _SWEEP_ROWS:
                pass

    async def _keep_swept(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            with contextlib.suppress(StateError):
                await self.sweep()


def _place(url: str) -> str:
    """Where it is, without whom to be there. Raises ConfigError."""
    said = _read(url)
    return f"{said.get('host', 'localhost')}:{said.get('port', 5432)}"


def _read(url: str) -> Mapping[str, Any]:
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        return conninfo_to_dict(url)
    except ProgrammingError:
        raise unreadable_address() from None


async def _make_tables(cursor: Any) -> None:
    await cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    await cursor.execute(_SCHEMA)


class PostgresLimits:
    """Implements `Limits`."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def take(self, key: str, rate: Rate, *, cost: int = 1) -> Taken:
        """Take from a limit."""
        step = gcra.interval(rate)
        asked = {"key": digest(key), "asked": cost * step, "most": rate.burst * step * (1 + 1e-9)}

        async def work(cursor: Any) -> Taken:
            await cursor.execute(_TAKE, asked)
            now, after = await cursor.fetchone()
            if after is not None:
                return gcra.granted(after, rate, now=now)
            await cursor.execute(_MOMENT, asked)  # a statement of its own: the one above sees the moment as it was when it began to wait
            now, arrival = await cursor.fetchone()
            return gcra.refused(max(now, arrival or now), rate, cost=cost, now=now)

        return await self._store.run(work)


class PostgresNonces:
    """Implements `Nonces`."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def claim(self, scope: str, nonce: str, *, seconds: float) -> bool:
        """Use a nonce up."""
        return await self._store.count(_CLAIM, {"key": digest(scope, nonce), "seconds": seconds}) == 1


class PostgresSessions:
    """Implements `Sessions`."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def read(self, key: SessionKey) -> tuple[Turn, ...]:
        """The turns kept."""
        statement = f"SELECT turns FROM sage_agent_sessions WHERE owner = %s AND context = %s AND until > {_NOW}"  # noqa: S608 - our own names
        row = await self._store.one(statement, (owner_of(key), raw(key.context_id)))
        return () if row is None else parse_turns(row[0])

    async def append(self, key: SessionKey, turns: Sequence[Turn], *, keep: int, seconds: float) -> None:
        """Add turns."""
        where = (owner_of(key), raw(key.context_id))

        async def work(cursor: Any) -> None:
            await cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (digest(where[0], key.context_id),))
            await cursor.execute(
                f"SELECT turns FROM sage_agent_sessions WHERE owner = %s AND context = %s AND until > {_NOW}",  # noqa: S608 - our own names
                where,
            )
            row = await cursor.fetchone()
            kept = (*(() if row is None else parse_turns(row[0])), *turns)[-keep:]
            text = json.dumps([[turn.role, turn.text] for turn in kept])
            await cursor.execute(
                f"INSERT INTO sage_agent_sessions VALUES (%s, %s, %s, {_NOW} + %s)"  # noqa: S608 - our own names
                " ON CONFLICT (owner, context) DO UPDATE SET turns = excluded.turns, until = excluded.until",
                (*where, text, seconds),
            )

        await self._store.run(work)

    async def export(self, tenant: str, user: str) -> dict[str, tuple[Turn, ...]]:
        """Every conversation of a user."""
        statement = f"SELECT context, turns FROM sage_agent_sessions WHERE owner = %s AND until > {_NOW} ORDER BY context"  # noqa: S608 - our own names
        rows = await self._store.all(statement, (owner_of(SessionKey(tenant, user, "")),))
        return {text_of(context): parse_turns(turns) for context, turns in rows}

    async def erase(self, tenant: str, user: str) -> int:
        """Forget a user."""
        return await self._store.count("DELETE FROM sage_agent_sessions WHERE owner = %s", (owner_of(SessionKey(tenant, user, "")),))


class PostgresBudgets:
    """Implements `Budgets`."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def reserve(self, call_id: str, usd: float, budgets: Sequence[Budget], *, seconds: float) -> Reserved:
        """Set money aside."""
        names = [digest(budget.name) for budget in budgets]
        asked = {
            "call": digest(call_id),
            "usd": usd,
            "names": names,
            "periods": [budget.seconds for budget in budgets],
            "seconds": seconds,
        }

        async def work(cursor: Any) -> Reserved:
            await cursor.execute(_PERIODS, asked)
            found = {name: (now, until, spent) for name, now, until, spent in await cursor.fetchall()}
            for budget, name in zip(budgets, names, strict=True):
                now, until, spent = found[name]
                if spent + usd > budget.usd:
                    await cursor.execute(_RESERVED, asked)
                    if await cursor.fetchone() is not None:
                        return Reserved(allowed=True)
                    await cursor.execute(_UNBEGUN, asked)
                    return Reserved(allowed=False, refused_by=budget.name, retry_after=until - now)
            await cursor.execute(_SET_ASIDE, asked)
            return Reserved(allowed=True)

        return await self._store.run(work)

    async def settle(self, call_id: str, usd: float) -> None:
        """Replace what was set aside."""
        await self._store.count(
            f"""
            WITH gone AS (DELETE FROM sage_agent_reservations WHERE call = %s AND until > {_NOW} RETURNING name, usd, period),
            held AS MATERIALIZED (SELECT name FROM sage_agent_budgets WHERE name IN (SELECT name FROM gone) ORDER BY name FOR UPDATE)
            UPDATE sage_agent_budgets AS b SET usd = greatest(0, b.usd + %s - gone.usd)
            FROM gone JOIN held USING (name) WHERE b.name = gone.name AND b.until = gone.period
            """,  # noqa: S608 - our own names
            (digest(call_id), usd),
        )

    async def used(self, budget: Budget) -> float:
        """What was spent and set aside."""
        return (await self._store.run(lambda cursor: self._period(cursor, budget)))[2]

    async def _period(self, cursor: Any, budget: Budget) -> tuple[float, float, float]:
        """The time now, when the current period of a budget ends, and what was spent in it."""
        await cursor.execute(
            f"SELECT now, until, usd FROM {_NOW} AS clock(now) LEFT JOIN sage_agent_budgets ON name = %s AND until > now",  # noqa: S608 - our own names
            (digest(budget.name),),
        )
        now, until, usd = await cursor.fetchone()
        return (now, now + budget.seconds, 0.0) if until is None else (now, until, usd)


class PostgresCache:
    """Implements `Cache`."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def get(self, key: str) -> bytes | None:
        """What was put."""
        row = await self._store.one(f"SELECT value FROM sage_agent_answers WHERE key = %s AND until > {_NOW}", (digest(key),))  # noqa: S608 - our own names
        return None if row is None else bytes(row[0])

    async def put(self, key: str, value: bytes, *, seconds: float) -> None:
        """Keep a value."""
        await self._store.count(
            f"INSERT INTO sage_agent_answers VALUES (%s, %s, {_NOW} + %s)"  # noqa: S608 - our own names
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value, until = excluded.until",
            (digest(key), value, seconds),
        )

    async def clear(self) -> None:
        """Forget everything."""
        await self._store.count("DELETE FROM sage_agent_answers")


class PostgresTasks:
    """Implements `Tasks`."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def get(self, owner: Owner, task_id: str) -> Stored | None:
        """A task."""
        tenant, user = task_owner(owner)
        statement = (
            "SELECT document, version FROM sage_agent_owned_tasks WHERE tenant = %s AND id = %s"  # noqa: S608 - our own names
            f" AND %s IN ('', owner) AND until > {_NOW}"
        )
        row = await self._store.one(statement, (tenant, raw(task_id), user))
        return None if row is None else Stored(bytes(row[0]), row[1])

    async def put(self, owner: Owner, task_id: str, document: bytes, *, expected: int, seconds: float) -> bool:
        """Write a task."""
        tenant, user = task_owner(owner)
        statement = f"""
            INSERT INTO sage_agent_owned_tasks AS t VALUES (%(tenant)s, %(id)s, %(user)s, %(document)s, 1, {_NOW} + %(seconds)s)
            ON CONFLICT (tenant, id) DO UPDATE
              SET owner = excluded.owner, document = excluded.document, version = excluded.version, until = excluded.until
            WHERE t.until <= {_NOW}
            """  # noqa: S608 - our own names
        if expected:
            statement = f"""
            UPDATE sage_agent_owned_tasks SET document = %(document)s, version = version + 1, until = {_NOW} + %(seconds)s
            WHERE tenant = %(tenant)s AND id = %(id)s AND owner = %(user)s AND version = %(expected)s AND until > {_NOW}
            """  # noqa: S608 - our own names
        asked = {"tenant": tenant, "user": user, "id": raw(task_id), "document": document, "expected": expected, "seconds": seconds}
        return await self._store.count(statement, asked) == 1

    async def list(self, owner: Owner, *, limit: int, after: str = "") -> tuple[tuple[str, Stored], ...]:
        """Tasks by id."""
        tenant, user = task_owner(owner)
        whose, of = ("owner = %s", user) if user else ("tenant = %s", tenant)
        statement = (
            f"SELECT id, document, version FROM sage_agent_owned_tasks WHERE {whose} AND id > %s"  # noqa: S608 - our own names
            f" AND until > {_NOW} ORDER BY id LIMIT %s"
        )
        rows = await self._store.all(statement, (of, raw(after), limit))
        return tuple((text_of(task_id), Stored(bytes(document), version)) for task_id, document, version in rows)

    async def delete(self, owner: Owner, task_id: str) -> None:
        """Forget a task."""
        tenant, user = task_owner(owner)
        statement = "DELETE FROM sage_agent_owned_tasks WHERE tenant = %s AND id = %s AND %s IN ('', owner)"
        await self._store.count(statement, (tenant, raw(task_id), user))

    async def erase(self, owner: Owner) -> int:
        """Forget a user."""
        return await self._store.count("DELETE FROM sage_agent_owned_tasks WHERE owner = %s", (task_owner(owner)[1],))


def postgres_state(url: str, *, pool: Pool, timeout: float) -> State:
    """State in the database at `url`; `timeout` is in seconds."""
    store = PostgresStore(url, pool=pool, timeout=timeout)
    return State(
        limits=PostgresLimits(store),
        nonces=PostgresNonces(store),
        sessions=PostgresSessions(store),
        budgets=PostgresBudgets(store),
        cache=PostgresCache(store),
        tasks=PostgresTasks(store),
        store=store,
    )
