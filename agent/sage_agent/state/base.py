"""The seams to shared state. Every operation is atomic across all replicas: nobody checks first and acts later.

Keys are made by whoever calls and may hold anything a caller sent: a store bounds and escapes them. Times are in seconds; moments are
those of the store's own clock (a database's for a shared one), so that replicas with different clocks agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from sage_agent.messages import Turn


class StateError(Exception):
    """The store cannot be asked now. `message` says what failed and where, without a credential."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `burst` at once; `per_second` come back every second, up to `burst` again."""

    per_second: float
    burst: int


UNLIMITED: Final = Rate(math.inf, 0)
"""No rate at all; no store is asked about it."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Whether something was taken from a limit, what is left of it, and in how many seconds some is back and all of it is."""

    allowed: bool
    remaining: int
    retry_after: float
    reset_after: float


class Limits(Protocol):
    """Rate limits (the generic cell rate algorithm, ITU-T I.371: one moment is kept for each key)."""

    async def take(self, key: str, rate: Rate, *, cost: int = 1) -> Taken:
        """Take `cost` from the limit of a key, or nothing. Raises StateError."""


class Nonces(Protocol):
    """What may be used once."""

    async def claim(self, scope: str, nonce: str, *, seconds: float) -> bool:
        """Use a nonce up: False where somebody has, within the last `seconds`. Raises StateError."""


@dataclass(frozen=True, slots=True)
class SessionKey:
    """Whose conversation, and which one. Nobody reads another's: all three parts count."""

    tenant: str
    user: str
    context_id: str


class Sessions(Protocol):
    """Conversations."""

    async def read(self, key: SessionKey) -> tuple[Turn, ...]:
        """The turns kept, the oldest first; none for a conversation that is new or has expired. Raises StateError."""

    async def append(self, key: SessionKey, turns: Sequence[Turn], *, keep: int, seconds: float) -> None:
        """Add turns together; the last `keep` stay, for `seconds` from now. Raises StateError."""

    async def export(self, tenant: str, user: str) -> dict[str, tuple[Turn, ...]]:
        """Every conversation of a user by its id. Raises StateError."""

    async def erase(self, tenant: str, user: str) -> int:
        """Forget every conversation of a user; returns how many there were. Raises StateError."""


@dataclass(frozen=True, slots=True)
class Budget:
    """So many US dollars within so many seconds, from the first that is spent on; `name` says whose, such as `tenant:acme`."""

    name: str
    usd: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Reserved:
    """Whether money was set aside; where not, which budget has too little left and in how many seconds it begins anew."""

    allowed: bool
    refused_by: str = ""
    retry_after: float = 0.0


class Budgets(Protocol):
    """Money: set aside before a call is made, settled when its price is known."""

    async def reserve(self, call_id: str, usd: float, budgets: Sequence[Budget], *, seconds: float) -> Reserved:
        """Set `usd` aside in all budgets, or in none. Where nobody settles it within `seconds` it counts as spent.

        The same `call_id` again sets nothing more aside. Raises StateError.
        """

    async def settle(self, call_id: str, usd: float) -> None:
        """Replace what was set aside by what was spent; a second time, or for an unknown id, changes nothing. Raises StateError."""

    async def used(self, budget: Budget) -> float:
        """US dollars spent and set aside in the current period. Raises StateError."""


class Cache(Protocol):
    """Answers that may be given again."""

    async def get(self, key: str) -> bytes | None:
        """What was put, until it expires. Raises StateError."""

    async def put(self, key: str, value: bytes, *, seconds: float) -> None:
        """Keep a value for `seconds`. Raises StateError."""

    async def clear(self) -> None:
        """Forget everything. Raises StateError."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A document and the number of its version, counted from 1."""

    document: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a task is: a user of a tenant. Whoever reads may leave out the user, who is then anybody of the tenant."""

    tenant: str
    user: str | None = None


class Tasks(Protocol):
    """Work that can be asked about later, by its owner. Within a tenant an id is one task's."""

    async def get(self, owner: Owner, task_id: str) -> Stored | None:
        """A task of this owner. Raises StateError."""

    async def put(self, owner: Owner, task_id: str, document: bytes, *, expected: int, seconds: float) -> bool:
        """Write a task for `seconds`; not where its version is not `expected` (0: there is none), or it is another's. Raises StateError."""

    async def list(self, owner: Owner, *, limit: int, after: str = "") -> tuple[tuple[str, Stored], ...]:
        """Tasks of an owner by id, in the order of their ids, beginning after one. Raises StateError."""

    async def delete(self, owner: Owner, task_id: str) -> None:
        """Forget a task. Raises StateError."""

    async def erase(self, owner: Owner) -> int:
        """Forget every task of a user; returns how many there were. Raises StateError."""


@dataclass(frozen=True, slots=True)
class State:
    """All of it, over one store."""

    limits: Limits
    nonces: Nonces
    sessions: Sessions
    budgets: Budgets
    cache: Cache
    tasks: Tasks
    store: Store


class Store(Protocol):
    """Where state is kept."""

    @property
    def kind(self) -> str:
        """`memory`, `sqlite`, `postgres` or `redis`."""

    async def open(self) -> None:
        """Connect, and make what is missing. Raises StateError where that fails for good."""

    async def check(self) -> bool:
        """Whether it answers, within a bounded time; for readiness."""

    async def close(self) -> None:
        """Finish what was accepted, and let go."""

    def renew(self, url: str) -> None:
        """Connect with the user and the password of this address from now on; the rest of it stays what it was."""

    def connections(self) -> tuple[int, int]:
        """How many connections are in use, and how many wait to be."""
