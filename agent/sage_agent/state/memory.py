"""State in this process's memory: gone with it and shared with nobody; for tests, and for those who need no more."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from sage_agent.messages import Turn
from sage_agent.state import gcra
from sage_agent.state.base import Budget, Owner, Rate, Reserved, SessionKey, State, Stored, Taken

K = TypeVar("K")
V = TypeVar("V")
_LOOK_SECONDS: Final = 1.0
"""How often is looked for room where there is none: that takes milliseconds."""
_FEW: Final = 100
"""Entries that are not worth looking through."""
_MOST: Final = 100_000
"""Entries of one kind; beyond, what expires soonest is forgotten first."""


class Expiring(Generic[K, V]):
    """Values that are gone after their time; `clock` is in seconds. It belongs to one event loop."""

    def __init__(self, clock: Callable[[], float], *, most: int = _MOST) -> None:
        self._clock = clock
        self._most = most
        self._values: dict[K, tuple[float, V]] = {}
        self._many = _FEW

    def get(self, key: K) -> V | None:
        """The value, until it expires."""
        found = self._values.get(key)
        if found is None or found[0] <= self._clock():
            return None
        return found[1]

    def put(self, key: K, value: V, *, seconds: float) -> None:
        """Keep a value."""
        if key not in self._values:
            if len(self._values) >= self._many:
                self._sweep()
            if len(self._values) >= self._most:
                self._make_room()
        self._values[key] = (self._clock() + seconds, value)

    def keys(self) -> Iterable[K]:
        """The keys of what has not expired."""
        now = self._clock()
        return [key for key, (until, _) in self._values.items() if until > now]

    def left(self, key: K) -> float:
        """Seconds until a value expires; 0 where there is none."""
        until, _ = self._values.get(key, (0.0, None))
        return max(0.0, until - self._clock())

    def pop(self, key: K) -> V | None:
        """Forget a value; what it was, until it expired."""
        value = self.get(key)
        self._values.pop(key, None)
        return value

    def _sweep(self) -> None:
        """Let go of what has expired, and again once there are twice as many as are left now: it costs each of them little."""
        now = self._clock()
        self._values = {key: found for key, found in self._values.items() if found[0] > now}
        self._many = max(_FEW, 2 * len(self._values))

    def _make_room(self) -> None:
        """Forget the tenth that expires soonest, what has expired among it."""
        soonest = sorted(self._values, key=lambda key: self._values[key][0])
        for key in soonest[: max(1, self._most // 10)]:
            del self._values[key]


class MemoryLimits:
    """Implements `Limits`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._arrivals: Expiring[str, float] = Expiring(clock)

    async def take(self, key: str, rate: Rate, *, cost: int = 1) -> Taken:
        """Take from a limit."""
        now = self._clock()
        before = self._arrivals.get(key)
        after, taken = gcra.take(now if before is None else before, rate, cost=cost, now=now)
        if taken.allowed:
            self._arrivals.put(key, after, seconds=after - now)
        return taken


class MemoryNonces:
    """Implements `Nonces`. It never forgets one early: where there is no room, none is accepted."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._used: dict[tuple[str, str], float] = {}
        self._look = 0.0

    async def claim(self, scope: str, nonce: str, *, seconds: float) -> bool:
        """Use a nonce up."""
        now = self._clock()
        if len(self._used) >= _MOST and now >= self._look:
            self._used = {key: until for key, until in self._used.items() if until > now}
            self._look = now + _LOOK_SECONDS
        if self._used.get((scope, nonce), now) > now or len(self._used) >= _MOST:
            return False
        self._used[scope, nonce] = now + seconds
        return True


class MemorySessions:
    """Implements `Sessions`. Each user has room of their own: one who begins many conversations pushes out nobody else's."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._users: Expiring[tuple[str, str], Expiring[str, tuple[Turn, ...]]] = Expiring(clock)
        self._clock = clock

    async def read(self, key: SessionKey) -> tuple[Turn, ...]:
        """The turns kept."""
        user = self._users.get((key.tenant, key.user))
        return () if user is None else user.get(key.context_id) or ()

    async def append(self, key: SessionKey, turns: Sequence[Turn], *, keep: int, seconds: float) -> None:
        """Add turns."""
        who = key.tenant, key.user
        user = self._users.get(who) or Expiring(self._clock, most=1000)
        user.put(key.context_id, (*(user.get(key.context_id) or ()), *turns)[-keep:], seconds=seconds)
        self._users.put(who, user, seconds=max(seconds, self._users.left(who)))

    async def export(self, tenant: str, user: str) -> dict[str, tuple[Turn, ...]]:
        """Every conversation of a user."""
        found = self._users.get((tenant, user))
        return {} if found is None else {key: found.get(key) or () for key in sorted(found.keys())}

    async def erase(self, tenant: str, user: str) -> int:
        """Forget a user."""
        found = self._users.pop((tenant, user))
        return 0 if found is None else len(list(found.keys()))


@dataclass(slots=True)
class _Period:
    until: float
    usd: float = 0.0


class MemoryBudgets:
    """Implements `Budgets`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._periods: Expiring[str, _Period] = Expiring(clock, most=sys.maxsize)
        self._reserved: Expiring[str, tuple[float, tuple[_Period, ...]]] = Expiring(clock)

    async def reserve(self, call_id: str, usd: float, budgets: Sequence[Budget], *, seconds: float) -> Reserved:
        """Set money aside."""
        if self._reserved.get(call_id) is not None:
            return Reserved(allowed=True)
        now = self._clock()
        periods = [(budget, self._period(budget, now)) for budget in budgets]
        for budget, period in periods:
            if period.usd + usd > budget.usd:
                return Reserved(allowed=False, refused_by=budget.name, retry_after=period.until - now)
        for budget, period in periods:
            period.usd += usd
            self._periods.put(budget.name, period, seconds=period.until - now)
        self._reserved.put(call_id, (usd, tuple(period for _, period in periods)), seconds=seconds)
        return Reserved(allowed=True)

    async def settle(self, call_id: str, usd: float) -> None:
        """Replace what was set aside."""
        found = self._reserved.pop(call_id)
        if found is None:
            return
        reserved, periods = found
        for period in periods:
            period.usd = max(0.0, period.usd + usd - reserved)

    async def used(self, budget: Budget) -> float:
        """What was spent and set aside."""
        return self._period(budget, self._clock()).usd

    def _period(self, budget: Budget, now: float) -> _Period:
        return self._periods.get(budget.name) or _Period(now + budget.seconds)


class MemoryCache:
    """Implements `Cache`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._values: Expiring[str, bytes] = Expiring(clock, most=10_000)

    async def get(self, key: str) -> bytes | None:
        """What was put."""
        return self._values.get(key)

    async def put(self, key: str, value: bytes, *, seconds: float) -> None:
        """Keep a value."""
        self._values.put(key, value, seconds=seconds)

    async def clear(self) -> None:
        """Forget everything."""
        for key in list(self._values.keys()):
            self._values.pop(key)


class MemoryTasks:
    """Implements `Tasks`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tenants: Expiring[str, Expiring[str, tuple[str | None, Stored]]] = Expiring(clock)

    async def get(self, owner: Owner, task_id: str) -> Stored | None:
        """A task."""
        tenant = self._tenants.get(owner.tenant)
        found = None if tenant is None else tenant.get(task_id)
        return found[1] if found is not None and owner.user in {None, found[0]} else None

    async def put(self, owner: Owner, task_id: str, document: bytes, *, expected: int, seconds: float) -> bool:
        """Write a task."""
        tasks = self._tenants.get(owner.tenant) or Expiring(self._clock, most=10_000)
        before = tasks.get(task_id)
        if (before is not None and before[0] != owner.user) or (0 if before is None else before[1].version) != expected:
            return False
        tasks.put(task_id, (owner.user, Stored(document, expected + 1)), seconds=seconds)
        self._tenants.put(owner.tenant, tasks, seconds=max(seconds, self._tenants.left(owner.tenant)))
        return True

    async def list(self, owner: Owner, *, limit: int, after: str = "") -> tuple[tuple[str, Stored], ...]:
        """Tasks by id."""
        ids = sorted(key for key in self._keys(owner) if key > after)[:limit]
        found = [(key, await self.get(owner, key)) for key in ids]
        return tuple((key, stored) for key, stored in found if stored is not None)

    async def delete(self, owner: Owner, task_id: str) -> None:
        """Forget a task."""
        if await self.get(owner, task_id) is not None and (tenant := self._tenants.get(owner.tenant)) is not None:
            tenant.pop(task_id)

    async def erase(self, owner: Owner) -> int:
        """Forget a user."""
        ids = self._keys(owner)
        for task_id in ids:
            await self.delete(owner, task_id)
        return len(ids)

    def _keys(self, owner: Owner) -> Sequence[str]:
        tenant = self._tenants.get(owner.tenant)
        if tenant is None:
            return ()
        return [key for key in tenant.keys() if (found := tenant.get(key)) is not None and owner.user in {None, found[0]}]  # noqa: SIM118 - only what has not expired


class MemoryStore:
    """Implements `Store`: there is nothing to connect to."""

    kind: Final = "memory"

    async def open(self) -> None:
        """Nothing to do."""

    async def check(self) -> bool:
        """Always there."""
        return True

    async def close(self) -> None:
        """Nothing to let go of."""

    def renew(self, url: str) -> None:
        """Nobody has to be told."""

    def connections(self) -> tuple[int, int]:
        """None."""
        return 0, 0


def memory_state(clock: Callable[[], float] = time.monotonic) -> State:
    """Fresh state in memory; nobody else reads its clock's moments, which may be those of any that is never put back."""
    return State(
        limits=MemoryLimits(clock),
        nonces=MemoryNonces(clock),
        sessions=MemorySessions(clock),
        budgets=MemoryBudgets(clock),
        cache=MemoryCache(clock),
        tasks=MemoryTasks(clock),
        store=MemoryStore(),
    )
