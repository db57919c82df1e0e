"""JSON web tokens (RFC 7519) of one issuer, by its public keys."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import jwt

from sage_agent.callers import Caller, Role
from sage_agent.security.config import JwtConfig
from sage_obs.errors import ConfigError

_log = logging.getLogger("sage_agent")
_LONGEST: Final = 8192
"""Characters of a token."""
_LONGEST_NAME: Final = 256
"""Characters of a subject or a tenant. Longer ones are refused: cut short, two of them could be one."""
_FRESH_SECONDS: Final = 600.0
"""After so long keys are fetched anew; those at hand serve meanwhile."""
_AGAIN_SECONDS: Final = 30.0
"""However many tokens name an unknown key, the issuer is asked no more often."""
_STALE_SECONDS: Final = 86_400.0
"""Keys that nobody could confirm for a day are not believed any more."""
_MOST_BYTES: Final = 512 * 1024
_FETCH_SECONDS: Final = 5.0
Fetch = Callable[[str], Awaitable[bytes]]


class Tokens:
    """Knows callers by their tokens. It belongs to one event loop; `clock` is in seconds."""

    def __init__(self, config: JwtConfig, *, fetch: Fetch | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._fetch = fetch or (fetch_url if "://" in config.jwks else _read_file)
        self._clock = clock
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._confirmed = -_STALE_SECONDS
        self._asked = -_AGAIN_SECONDS
        self._fetching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Get the keys. Raises ConfigError where that fails: no token could be checked."""
        await self._refresh()
        if not self._keys:
            raise ConfigError(f"There are no usable keys at {self._config.jwks}.", hint="Correct security.jwt.jwks.")

    async def caller(self, token: str) -> Caller | None:
        """Who a token is of; None for any token that proves nothing, whatever is wrong with it."""
        if len(token) > _LONGEST:
            return None
        try:
            head = jwt.get_unverified_header(token)
            key = await self._key(head)
            if key is None or head.get("alg") not in self._config.algorithms or "crit" in head:
                return None
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[head["alg"]],
                audience=self._config.audience,
                issuer=self._config.issuer,
                leeway=self._config.leeway,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as exc:
            _log.debug("a token was refused", extra={"reason": type(exc).__name__})
            return None
        return self._caller(claims)

    def _caller(self, claims: Mapping[str, Any]) -> Caller | None:
        """Who the claims are of. A role that is not one of ours is none; without the claim it is operator."""
        subject, tenant = claims.get("sub"), claims.get(self._config.tenant_claim, "")
        said = claims.get(self._config.role_claim, Role.OPERATOR.name)
        roles = [Role.__members__.get(str(one).upper()) for one in (said if isinstance(said, list) else [said])]
        known = [role for role in roles if role is not None]
        if not isinstance(subject, str) or not subject or not isinstance(tenant, str) or not known:
            return None
        if max(len(subject), len(tenant)) > _LONGEST_NAME:
            return None
        if not subject.isprintable() or not tenant.isprintable():  # half characters and line ends go wrong wherever a name is written
            return None
        return Caller(subject, tenant, max(known), "jwt")

    async def _key(self, head: Mapping[str, Any]) -> jwt.PyJWK | None:
        now = self._clock()
        if now - self._confirmed > _FRESH_SECONDS and now - self._asked > _AGAIN_SECONDS:
            self._begin_refresh()
        name = str(head.get("kid") or "")
        key = self._find(name)
        if key is None and now - self._asked > _AGAIN_SECONDS:
            self._begin_refresh()
        if key is None and self._fetching is not None:
            await asyncio.wait([self._fetching], timeout=_FETCH_SECONDS)
            key = self._find(name)
        return key if self._clock() - self._confirmed <= _STALE_SECONDS else None

    def _find(self, name: str) -> jwt.PyJWK | None:
        """The key of this name; without a name the only one there is."""
        if not name and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(name)

    def _begin_refresh(self) -> None:
        if self._fetching is None or self._fetching.done():
            self._asked = self._clock()
            self._fetching = asyncio.get_running_loop().create_task(self._refresh())

    async def _refresh(self) -> None:
        self._asked = self._clock()
        try:
            found = _public_keys(await self._fetch(self._config.jwks))
        except (OSError, httpx.HTTPError, ValueError, jwt.PyJWTError, TimeoutError) as exc:
            _log.warning("the keys of the tokens' issuer cannot be had", extra={"place": self._config.jwks, "reason": type(exc).__name__})
            return
        if found:
            self._keys, self._confirmed = found, self._clock()


def _public_keys(document: bytes) -> dict[str, jwt.PyJWK]:
    """The keys of a JWKS that can check signatures, by their ids; secret and private ones are passed over: who reads them can sign."""
    parsed = json.loads(document)
    keys = parsed.get("keys") if isinstance(parsed, dict) else None
    found = {}
    for one in keys if isinstance(keys, list) else []:
        if not isinstance(one, dict) or one.get("kty") == "oct" or "d" in one or one.get("use", "sig") != "sig":
            continue
        try:
            found[str(one.get("kid") or "")] = jwt.PyJWK(one)
        except jwt.PyJWTError:
            continue
    return found


async def _read_file(place: str) -> bytes:
    return await asyncio.to_thread(Path(place).read_bytes)


async def fetch_url(place: str) -> bytes:
    """An address's answer, in five seconds and half a megabyte; it is not sent elsewhere. Raises HTTPError, ValueError, TimeoutError."""
    client = httpx.AsyncClient(timeout=_FETCH_SECONDS, follow_redirects=False)
    async with asyncio.timeout(_FETCH_SECONDS), client, client.stream("GET", place) as response:
        response.raise_for_status()
        whole = b""
        async for piece in response.aiter_bytes():
            whole += piece
            if len(whole) > _MOST_BYTES:
                raise ValueError("too long")
    return whole
