"""The keys of a DID, whatever its method; remembered no longer than its record allows."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from sage_agent.security import did_web, sage_web
from sage_agent.security.did import Resolved, UnresolvableError, keys_of_did_key
from sage_agent.security.fetching import Fetcher
from sage_agent.security.registry import FileRegistry

_MOST: Final = 4096
"""DIDs remembered; beyond, the one unused for longest is forgotten."""
_FAILED_SECONDS: Final = 5.0
"""How long a failure is remembered: long enough that nobody can make this agent ask a host in a loop."""
_FOREVER: Final = 3600.0


class Resolver:
    """Finds keys: in the file, in the DID itself, at its domain. `ttl` (seconds, 0 for none) bounds the memory of what was fetched."""

    def __init__(
        self,
        fetcher: Fetcher,
        *,
        registry: FileRegistry | None = None,
        origins: Mapping[str, int] | None = None,
        ttl: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._fetcher = fetcher
        self._registry = registry
        self._origins = origins or {}
        self._ttl = ttl
        self._clock = clock
        self._remembered: OrderedDict[str, tuple[float, Resolved | UnresolvableError]] = OrderedDict()
        self._asked: dict[str, asyncio.Task[Resolved]] = {}

    async def resolve(self, did: str) -> Resolved:
        """The keys of a DID. Raises UnresolvableError."""
        if self._registry is not None and (known := self._registry.find(did)) is not None:
            return Resolved(known, 0.0)
        if did.startswith(sage_web.PREFIX):
            return await sage_web.resolve(did, self._fetcher, origins=self._origins, now=self._clock())
        if (found := self._recall(did)) is not None:
            return found
        if did.startswith("did:key:"):
            return self._remember(did, Resolved(keys_of_did_key(did), _FOREVER))
        if did.startswith("did:web:"):
            return await self._once(did, lambda: did_web.resolve(did, self._fetcher, ttl=self._ttl))
        raise UnresolvableError("id.unknown-kind")

    async def close(self) -> None:
        """Let go of the connections."""
        for task in tuple(self._asked.values()):
            task.cancel()
        await self._fetcher.close()

    def clear(self) -> int:
        """Forget everything; returns how much there was."""
        count = len(self._remembered)
        self._remembered.clear()
        return count

    async def _once(self, did: str, ask: Callable[[], Awaitable[Resolved]]) -> Resolved:
        """One fetch for all who wait for it; it goes on when one of them leaves."""
        task = self._asked.get(did)
        if task is None:
            task = asyncio.ensure_future(self._fetch(did, ask))
            self._asked[did] = task
            task.add_done_callback(lambda done: self._settled(did, done))
        return await asyncio.shield(task)

    async def _fetch(self, did: str, ask: Callable[[], Awaitable[Resolved]]) -> Resolved:
        try:
            return self._remember(did, await ask())
        except UnresolvableError as exc:
            self._keep(did, exc, _FAILED_SECONDS)
            raise

    def _settled(self, did: str, task: asyncio.Task[Resolved]) -> None:
        self._asked.pop(did, None)
        if not task.cancelled():
            task.exception()

    def _recall(self, did: str) -> Resolved | None:
        until, found = self._remembered.get(did, (0.0, None))
        if found is None or until <= self._clock():
            return None
        self._remembered.move_to_end(did)
        if isinstance(found, UnresolvableError):
            raise UnresolvableError(found.reason)
        return found

    def _remember(self, did: str, resolved: Resolved) -> Resolved:
        if resolved.seconds > 0:
            self._keep(did, resolved, resolved.seconds)
        return resolved

    def _keep(self, did: str, found: Resolved | UnresolvableError, seconds: float) -> None:
        self._remembered[did] = (self._clock() + seconds, found)
        self._remembered.move_to_end(did)
        if len(self._remembered) > _MOST:
            self._remembered.popitem(last=False)
