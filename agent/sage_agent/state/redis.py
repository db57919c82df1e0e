"""State in Redis, for several replicas: every operation is one script, by the server's clock."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

from sage_agent.messages import Turn
from sage_agent.state import gcra
from sage_agent.state.base import Budget, Owner, Rate, Reserved, SessionKey, State, StateError, Stored, Taken
from sage_agent.state.bounded import Bounded
from sage_agent.state.config import unreadable_address
from sage_agent.state.keys import digest, owner_of, raw, task_owner, text_of
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
_DIGEST: Final = 40
"""Characters of a digest, which begins each member of an index so that a script can tell the key of what it stands for."""
_APPEND: Final = f"""{_NOW}
local keep, ms, member = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
for at = 4, #ARGV do redis.call('RPUSH', KEYS[1], ARGV[at]) end
redis.call('LTRIM', KEYS[1], -keep, -1)
redis.call('PEXPIRE', KEYS[1], ms)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now * 1000 - 1)
redis.call('ZADD', KEYS[2], string.format('%.0f', now * 1000 + ms), member)
if redis.call('PTTL', KEYS[2]) < ms then redis.call('PEXPIRE', KEYS[2], ms) end
"""
_EXPORT: Final = f"""
local found = {{}}
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local turns = redis.call('LRANGE', ARGV[1] .. string.sub(member, 1, {_DIGEST}), 0, -1)
  if #turns > 0 then found[#found + 1] = {{string.sub(member, {_DIGEST + 1}), turns}} end
end
return found
"""
_ERASE: Final = f"""
local count = 0
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  count = count + redis.call('DEL', ARGV[1] .. string.sub(member, 1, {_DIGEST}))
end
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
_PUT_TASK: Final = f"""{_NOW}
local user, version, ms, id = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local before = redis.call('HMGET', KEYS[1], 'user', 'version')
if (before[1] or user) ~= user or tonumber(before[2] or '0') ~= version then return 0 end
redis.call('HSET', KEYS[1], 'user', user, 'document', ARGV[5], 'version', version + 1)
redis.call('PEXPIRE', KEYS[1], ms)
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now * 1000 - 1, 'LIMIT', 0, 100)) do
  local gone = string.sub(member, {_DIGEST + 1})
  redis.call('ZREM', KEYS[4], member)
  redis.call('ZREM', KEYS[3], gone)
  redis.call('ZREM', ARGV[6] .. string.sub(member, 1, {_DIGEST}), gone)
end
redis.call('ZADD', KEYS[2], 0, id)
redis.call('ZADD', KEYS[3], 0, id)
redis.call('ZADD', KEYS[4], string.format('%.0f', now * 1000 + ms), user .. id)
for at = 2, 4 do
  if redis.call('PTTL', KEYS[at]) < ms then redis.call('PEXPIRE', KEYS[at], ms) end
end
return 1
"""
"""A task, and three indexes: the ids of its user, those of its tenant, and when each of these expires, by which they leave the two."""
_DELETE_TASK: Final = """
local user = redis.call('HGET', KEYS[1], 'user')
if not user or (ARGV[1] ~= '' and user ~= ARGV[1]) then return 0 end
redis.call('ZREM', ARGV[3] .. user, ARGV[2])
redis.call('ZREM', KEYS[2], ARGV[2])
redis.call('ZREM', KEYS[3], user .. ARGV[2])
return redis.call('DEL', KEYS[1])
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
        from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        self._prefix = f"{{{prefix}}}"
        self._bounded = Bounded(timeout)
        said: dict[str, Any] = dict(_read(url))
        self._credentials = Credentials(said.pop("username", ""), said.pop("password", ""))
        if issubclass(said.get("connection_class", Connection), SSLConnection) and said.get("ssl_cert_reqs") not in {"none", "CERT_NONE"}:
            said.setdefault("ssl_check_hostname", True)  # redis-py before 6 takes any name that the authority has signed
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
        return f"{self.keys(kind)}{digest(*parts)}"

    def keys(self, kind: str) -> str:
        """What the names of a kind begin with."""
        return f"{self._prefix}:{kind}:"

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
        name = self._key(key)
        member = name[-_DIGEST:].encode() + raw(key.context_id)
        await self._store.script(_APPEND, [name, self._user(key.tenant, key.user)], keep, round(seconds * 1000), member, *lines)

    async def export(self, tenant: str, user: str) -> dict[str, tuple[Turn, ...]]:
        """Every conversation of a user."""
        found = await self._store.script(_EXPORT, [self._user(tenant, user)], self._store.keys("session"))
        return dict(sorted((text_of(context), _parse(lines)) for context, lines in found))

    async def erase(self, tenant: str, user: str) -> int:
        """Forget a user."""
        return int(await self._store.script(_ERASE, [self._user(tenant, user)], self._store.keys("session")))

    def _key(self, key: SessionKey) -> str:
        return self._store.key("session", owner_of(key), key.context_id)

    def _user(self, tenant: str, user: str) -> str:
        return self._store.key("conversations", owner_of(SessionKey(tenant, user, "")))


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

    async def get(self, owner: Owner, task_id: str) -> Stored | None:
        """A task."""
        tenant, user = task_owner(owner)
        return _task_of(await self._store.do(self._store.client.hmget(self._key(tenant, task_id), *_TASK)), user)

    async def put(self, owner: Owner, task_id: str, document: bytes, *, expected: int, seconds: float) -> bool:
        """Write a task."""
        tenant, user = task_owner(owner)
        keys = [self._key(tenant, task_id), self._store.keys("tasks") + user, self._store.keys("tasks") + tenant, self._over(tenant)]
        ms, prefix = round(seconds * 1000), self._store.keys("tasks")
        return bool(await self._store.script(_PUT_TASK, keys, user, expected, ms, raw(task_id), document, prefix))

    async def list(self, owner: Owner, *, limit: int, after: str = "") -> tuple[tuple[str, Stored], ...]:
        """Tasks by id; the index may know some that have expired."""
        tenant, user = task_owner(owner)
        index = self._store.keys("tasks") + (user or tenant)
        found: list[tuple[str, Stored]] = []
        begin = b"(" + raw(after) if after else b"-"
        while len(found) < limit:
            ids = await self._store.do(self._store.client.zrangebylex(index, begin, b"+", start=0, num=limit))
            if not ids:
                break
            begin = b"(" + ids[-1]
            together = self._store.client.pipeline(transaction=False)
            for one in ids:
                together.hmget(self._key(tenant, text_of(one)), *_TASK)
            rows = await self._store.do(together.execute())
            tasks = [(text_of(one), _task_of(row, user)) for one, row in zip(ids, rows, strict=True)]
            found += [(task_id, stored) for task_id, stored in tasks if stored is not None]
        return tuple(found[:limit])

    async def delete(self, owner: Owner, task_id: str) -> None:
        """Forget a task."""
        await self._delete(*task_owner(owner), raw(task_id))

    async def erase(self, owner: Owner) -> int:
        """Forget a user."""
        tenant, user = task_owner(owner)
        ids = await self._store.do(self._store.client.zrange(self._store.keys("tasks") + user, 0, -1))
        return sum([await self._delete(tenant, user, one) for one in ids])

    async def _delete(self, tenant: str, user: str, task_id: bytes) -> int:
        keys = [self._key(tenant, text_of(task_id)), self._store.keys("tasks") + tenant, self._over(tenant)]
        return int(await self._store.script(_DELETE_TASK, keys, user, task_id, self._store.keys("tasks")))

    def _key(self, tenant: str, task_id: str) -> str:
        return self._store.key("task", tenant, task_id)

    def _over(self, tenant: str) -> str:
        """When the tasks of a tenant expire."""
        return self._store.keys("tasks-over") + tenant


_TASK: Final = ("user", "document", "version")


def _task_of(row: Sequence[bytes | None], user: str) -> Stored | None:
    """A task that may be read by a user, or without one by the tenant."""
    whose, document, version = row
    if whose is None or document is None or version is None or user not in {"", whose.decode()}:
        return None
    return Stored(document, int(version))


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
