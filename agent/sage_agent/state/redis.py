"""State in Redis, for several replicas: every operation is one script, by the server's clock."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

from sage_agent.messages import Turn
from sage_agent.state import gcra
from sage_agent.state.base import Budget, Rate, Reserved, SessionKey, State, StateError, Stored, Taken
from sage_agent.state.bounded import Bounded
from sage_agent.state.config import unreadable_address
from sage_agent.state.keys import digest, owner_of, raw, text_of
from sage_agent.state.sqlite import parse_turns

T = TypeVar("T")
_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
"""
_TAKE: Final = f"""{_NOW}
local step, burst, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local begun = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
if begun - now > burst * step + {gcra.STEPPED_SECONDS} then begun = now end
local after = begun + cost * step
if after - now > burst * step * (1 + 1e-9) then return {{0, string.format('%.6f', begun), string.format('%.6f', now)}} end
redis.call('SET', KEYS[1], string.format('%.6f', after), 'PX', math.ceil((after - now) * 1000) + 1)
return {{1, string.format('%.6f', after), string.format('%.6f', now)}}
"""
_APPEND: Final = """
local keep, ms = tonumber(ARGV[1]), tonumber(ARGV[2])
for at = 4, #ARGV do redis.call('RPUSH', KEYS[1], ARGV[at]) end
redis.call('LTRIM', KEYS[1], -keep, -1)
redis.call('PEXPIRE', KEYS[1], ms)
redis.call('HSET', KEYS[2], ARGV[3], KEYS[1])
if redis.call('PTTL', KEYS[2]) < ms then redis.call('PEXPIRE', KEYS[2], ms) end
"""
_EXPORT: Final = """
local found, known = {}, redis.call('HGETALL', KEYS[1])
for at = 1, #known, 2 do
  local turns = redis.call('LRANGE', known[at + 1], 0, -1)
  if #turns == 0 then redis.call('HDEL', KEYS[1], known[at]) else found[#found + 1] = {known[at], turns} end
end
return found
"""
_ERASE: Final = """
local count, known = 0, redis.call('HGETALL', KEYS[1])
for at = 1, #known, 2 do count = count + redis.call('DEL', known[at + 1]) end
redis.call('DEL', KEYS[1])
return count
"""
_RESERVE: Final = f"""{_NOW}
if redis.call('EXISTS', KEYS[1]) == 1 then return {{1, 0, '0'}} end
local usd, ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local untils = {{}}
for at = 2, #KEYS do
  local limit, seconds = tonumber(ARGV[2 * at - 1]), tonumber(ARGV[2 * at])
  local row = redis.call('HMGET', KEYS[at], 'until', 'usd')
  local till, spent = tonumber(row[1] or '0'), tonumber(row[2] or '0')
  if till <= now then till, spent = now + seconds, 0 end
  if spent + usd > limit then return {{0, at - 1, string.format('%.6f', till - now)}} end
  untils[at] = {{string.format('%.6f', till), spent}}
end
for at = 2, #KEYS do
  local till = untils[at][1]
  redis.call('HSET', KEYS[at], 'until', till, 'usd', string.format('%.9f', untils[at][2] + usd))
  redis.call('PEXPIREAT', KEYS[at], math.ceil(tonumber(till) * 1000))
  redis.call('HSET', KEYS[1], KEYS[at], till .. ' ' .. ARGV[1])
end
if #KEYS > 1 then redis.call('PEXPIRE', KEYS[1], ms) end
return {{1, 0, '0'}}
"""
_SETTLE: Final = """
local rows = redis.call('HGETALL', KEYS[1])
for at = 1, #rows, 2 do
  local till, reserved = string.match(rows[at + 1], '^(%S+) (%S+)$')
  if redis.call('HGET', rows[at], 'until') == till then
    local spent = tonumber(redis.call('HGET', rows[at], 'usd')) + tonumber(ARGV[1]) - tonumber(reserved)
    redis.call('HSET', rows[at], 'usd', string.format('%.9f', math.max(0, spent)))
  end
end
redis.call('DEL', KEYS[1])
"""
_PUT_TASK: Final = """
local version = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
if version ~= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'document', ARGV[1], 'version', version + 1)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('ZADD', KEYS[2], 0, ARGV[4])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
return 1
"""


@dataclass(slots=True)
class Credentials:
    """What the client asks for whenever it connects."""

    username: str
    password: str = field(repr=False)

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Name and password, or the password alone."""
        return (self.username, self.password) if self.username else (self.password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """The same."""
        return self.get_credentials()


class RedisStore:
    """Implements `Store` on the server at `url`; no operation takes more than `timeout` seconds.

    All keys carry one hash tag, so that a cluster keeps them together and scripts may touch several.
    """

    kind: Final = "redis"

    def __init__(self, url: str, *, connections: int, timeout: float, prefix: str = "sage-agent") -> None:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        self._prefix = f"{{{prefix}}}"
        self._bounded = Bounded(timeout)
        said: dict[str, Any] = dict(_read(url))
        self._credentials = Credentials(said.pop("username", ""), said.pop("password", ""))
        pool = BlockingConnectionPool(
            **said,
            credential_provider=self._credentials if self._credentials.password else None,
            max_connections=connections,
            timeout=timeout,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            health_check_interval=30,
            retry=Retry(NoBackoff(), 0),  # what was cut off may have been done: again it would be done twice
            client_name="sage-agent",
        )
        self._pool: Any = pool
        self._client: Any = Redis.from_pool(pool)
        self._scripts: dict[str, Any] = {}
        self._place = _place(pool.connection_kwargs)

    def key(self, kind: str, *parts: str) -> str:
        """The name of something."""
        return f"{self._prefix}:{kind}:{digest(*parts)}"

    async def open(self) -> None:
        """Connect. Raises StateError."""
        await self.do(self._client.ping())

    async def check(self) -> bool:
        """Whether it answers."""
        try:
            await self.do(self._client.ping())
        except StateError:
            return False
        return True

    async def close(self) -> None:
        """Let go of the connections."""
        await self._bounded.close()
        await self._client.aclose()

    def renew(self, url: str) -> None:
        """Connect with another user or password; what is connected stays so. Raises ConfigError."""
        said = _read(url)
        self._credentials.username, self._credentials.password = said.get("username", ""), said.get("password", "")

    def connections(self) -> tuple[int, int]:
        """Those of the pool."""
        return len(self._pool._in_use_connections), len([one for one in self._pool._available_connections if one.is_connected])  # noqa: SLF001 - it tells nobody

    async def script(self, text: str, keys: Sequence[str], *arguments: str | bytes | float) -> Any:
        """What a script returns; it is sent once and called by its digest from then on. Raises StateError."""
        script = self._scripts.get(text)
        if script is None:
            script = self._scripts[text] = self._client.register_script(text)
        return await self.do(script(keys=list(keys), args=list(arguments)))

    async def do(self, asked: Awaitable[T]) -> T:
        """The answer to a command. Raises StateError."""
        from redis.exceptions import RedisError

        try:
            return await self._bounded.run(_coroutine(asked))
        except (RedisError, OSError, TimeoutError) as exc:
            raise StateError(f"Redis at {self._place} cannot be asked ({type(exc).__name__}).") from exc

    @property
    def client(self) -> Any:
        """The connection pool's client."""
        return self._client


async def _coroutine(asked: Awaitable[T]) -> T:
    return await asked


def _read(url: str) -> Mapping[str, Any]:
    from redis.asyncio.connection import parse_url

    try:
        return cast("Mapping[str, Any]", parse_url(url))
    except ValueError:
        raise unreadable_address() from None


def _place(kwargs: dict[str, Any]) -> str:
    return str(kwargs.get("path") or f"{kwargs.get('host', 'localhost')}:{kwargs.get('port', 6379)}")


class RedisLimits:
    """Implements `Limits`."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def take(self, key: str, rate: Rate, *, cost: int = 1) -> Taken:
        """Take from a limit."""
        allowed, moment, now = await self._store.script(_TAKE, [self._store.key("limit", key)], gcra.interval(rate), rate.burst, cost)
        if allowed:
            return gcra.granted(float(moment), rate, now=float(now))
        return gcra.refused(float(moment), rate, cost=cost, now=float(now))


class RedisNonces:
    """Implements `Nonces`."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def claim(self, scope: str, nonce: str, *, seconds: float) -> bool:
        """Use a nonce up."""
        claimed = self._store.client.set(self._store.key("nonce", scope, nonce), b"1", nx=True, px=max(1, round(seconds * 1000)))
        return await self._store.do(claimed) is not None


class RedisSessions:
    """Implements `Sessions`."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def read(self, key: SessionKey) -> tuple[Turn, ...]:
        """The turns kept."""
        lines = await self._store.do(self._store.client.lrange(self._key(key), 0, -1))
        return _parse(lines)

    async def append(self, key: SessionKey, turns: Sequence[Turn], *, keep: int, seconds: float) -> None:
        """Add turns."""
        lines = [json.dumps([turn.role, turn.text]) for turn in turns]
        keys = [self._key(key), self._user(key.tenant, key.user)]
        await self._store.script(_APPEND, keys, keep, round(seconds * 1000), raw(key.context_id), *lines)

    async def export(self, tenant: str, user: str) -> dict[str, tuple[Turn, ...]]:
        """Every conversation of a user."""
        found = await self._store.script(_EXPORT, [self._user(tenant, user)])
        return dict(sorted((text_of(context), _parse(lines)) for context, lines in found))

    async def erase(self, tenant: str, user: str) -> int:
        """Forget a user."""
        return int(await self._store.script(_ERASE, [self._user(tenant, user)]))

    def _key(self, key: SessionKey) -> str:
        return self._store.key("session", owner_of(key), key.context_id)

    def _user(self, tenant: str, user: str) -> str:
        return self._store.key("user", owner_of(SessionKey(tenant, user, "")))


def _parse(lines: Sequence[bytes]) -> tuple[Turn, ...]:
    return parse_turns(f"[{','.join(line.decode() for line in lines)}]")


class RedisBudgets:
    """Implements `Budgets`."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def reserve(self, call_id: str, usd: float, budgets: Sequence[Budget], *, seconds: float) -> Reserved:
        """Set money aside."""
        keys = [self._store.key("call", call_id), *(self._store.key("budget", budget.name) for budget in budgets)]
        bounds = [value for budget in budgets for value in (budget.usd, budget.seconds)]
        allowed, by, wait = await self._store.script(_RESERVE, keys, f"{usd:.9f}", round(seconds * 1000), *bounds)
        return Reserved(allowed=True) if allowed else Reserved(allowed=False, refused_by=budgets[by - 1].name, retry_after=float(wait))

    async def settle(self, call_id: str, usd: float) -> None:
        """Replace what was set aside."""
        await self._store.script(_SETTLE, [self._store.key("call", call_id)], f"{usd:.9f}")

    async def used(self, budget: Budget) -> float:
        """What was spent and set aside."""
        return float(await self._store.do(self._store.client.hget(self._store.key("budget", budget.name), "usd")) or 0.0)


class RedisCache:
    """Implements `Cache`. Forgetting everything is turning a page: what stands on the old one expires unread."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def get(self, key: str) -> bytes | None:
        """What was put."""
        return cast("bytes | None", await self._store.do(self._store.client.get(await self._key(key))))

    async def put(self, key: str, value: bytes, *, seconds: float) -> None:
        """Keep a value."""
        await self._store.do(self._store.client.set(await self._key(key), value, px=max(1, round(seconds * 1000))))

    async def clear(self) -> None:
        """Forget everything."""
        await self._store.do(self._store.client.incr(self._store.key("page")))

    async def _key(self, key: str) -> str:
        return f"{await self._page()}:{digest(key)}"

    async def _page(self) -> str:
        page = await self._store.do(self._store.client.get(self._store.key("page")))
        return f"{self._store.key('answers')}:{int(page or 0)}"


class RedisTasks:
    """Implements `Tasks`."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def get(self, owner: str, task_id: str) -> Stored | None:
        """A task."""
        document, version = await self._store.do(self._store.client.hmget(self._key(owner, task_id), "document", "version"))
        return None if document is None else Stored(document, int(version))

    async def put(self, owner: str, task_id: str, document: bytes, *, expected: int, seconds: float) -> bool:
        """Write a task."""
        keys = [self._key(owner, task_id), self._store.key("tasks", owner)]
        return bool(await self._store.script(_PUT_TASK, keys, document, expected, round(seconds * 1000), raw(task_id)))

    async def list(self, owner: str, *, limit: int, after: str = "") -> tuple[tuple[str, Stored], ...]:
        """Tasks by id; the index may know some that have expired."""
        found: list[tuple[str, Stored]] = []
        while len(found) < limit:
            begin = b"(" + raw(after) if after else b"-"
            ids = await self._store.do(self._store.client.zrangebylex(self._store.key("tasks", owner), begin, b"+", start=0, num=limit))
            if not ids:
                break
            for one in ids:
                after = text_of(one)
                if (stored := await self.get(owner, after)) is not None:
                    found.append((after, stored))
                else:
                    await self._store.do(self._store.client.zrem(self._store.key("tasks", owner), one))
        return tuple(found[:limit])

    async def delete(self, owner: str, task_id: str) -> None:
        """Forget a task."""
        await self._store.do(self._store.client.delete(self._key(owner, task_id)))

    def _key(self, owner: str, task_id: str) -> str:
        return self._store.key("task", owner, task_id)


def redis_state(url: str, *, connections: int, timeout: float) -> State:
    """State on the Redis server at `url`, over at most so many connections; `timeout` is in seconds."""
    store = RedisStore(url, connections=connections, timeout=timeout)
    return State(
        limits=RedisLimits(store),
        nonces=RedisNonces(store),
        sessions=RedisSessions(store),
        budgets=RedisBudgets(store),
        cache=RedisCache(store),
        tasks=RedisTasks(store),
        store=store,
    )
