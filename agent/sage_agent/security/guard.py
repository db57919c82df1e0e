"""Guards of the message routes: who is it, may they, and not too often."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol

import sage_obs
from sage_agent.callers import ANONYMOUS, Caller, Role
from sage_agent.problems import RETRY_SOON_SECONDS, Problem
from sage_agent.security.addresses import client_address
from sage_agent.security.api_keys import ApiKeys
from sage_agent.security.certificates import Certificates
from sage_agent.security.config import RatesConfig
from sage_agent.security.options import Network
from sage_agent.state.base import UNLIMITED, Limits, Rate, StateError, Taken
from sage_agent.web.guard import Guard, say_also
from sage_agent.web.wire import Head, Scope, head_of
from sage_obs.conventions import RATE_LIMIT_DECISIONS, ErrorType

_log = logging.getLogger("sage_agent")
_BEARER: Final = "bearer "


def unauthorized() -> Problem:
    """The one answer to everybody who has not proved who they are, whatever was wrong."""
    return Problem(HTTPStatus.UNAUTHORIZED, ErrorType.AUTH, "Who you are is not proved.", headers=((b"www-authenticate", b"Bearer"),))


def forbidden(needed: Role) -> Problem:
    """The caller is known, and may not."""
    return Problem(HTTPStatus.FORBIDDEN, ErrorType.AUTH, f"This needs the role {needed.name.lower()}.")


class TokenCallers(Protocol):
    """Knows callers by their tokens."""

    async def caller(self, token: str) -> Caller | None:
        """Who a token is of; None for nobody."""


@dataclass(frozen=True, slots=True)
class Identification:
    """Knows callers by what the head of a request says: a client certificate, a token, a key. None for what is not accepted."""

    certificates: Certificates | None = None
    tokens: TokenCallers | None = None
    keys: ApiKeys | None = None

    async def caller(self, scope: Scope, head: Head) -> Caller | None:
        """Who it is; None for nobody that is known. A credential that is wrong is not made up for by another."""
        said = head.get(b"authorization", b"").decode("latin-1")
        if said:
            if said[: len(_BEARER)].lower() != _BEARER:
                return None
            return await self._by_bearer(said[len(_BEARER) :].strip())
        if (key := head.get(b"x-api-key")) is not None:
            return None if self.keys is None else self.keys.caller(key.decode("latin-1"))
        certificate = scope.get("extensions", {}).get("tls", {}).get("client_cert")
        return self.certificates.caller(certificate) if self.certificates is not None and certificate else None

    async def _by_bearer(self, said: str) -> Caller | None:
        if self.keys is not None and (caller := self.keys.caller(said)) is not None:
            return caller
        return None if self.tokens is None else await self.tokens.caller(said)


class CallerGuard:
    """Implements `Guard`: lets those in who prove who they are."""

    def __init__(self, identification: Identification) -> None:
        self._identification = identification

    async def identify(self, scope: Scope) -> Caller:
        """Who this is."""
        caller = await self._identification.caller(scope, head_of(scope))
        if caller is None:
            raise unauthorized()
        return caller

    async def verify(self, scope: Scope, body: bytes, caller: Caller) -> Caller:
        """The body proves nothing more."""
        del scope, body
        return caller


def for_operators(scope: Scope, body: bytes) -> Role:
    """What everything needs where messages are sent."""
    del scope, body
    return Role.OPERATOR


class RoleGuard:
    """Implements `Guard` around another: lets those in whose role is enough for what they ask.

    `least` is needed for anything; `needed` says of a whole request what it needs, and is asked about those below operators only.
    """

    def __init__(self, inner: Guard, *, least: Role = Role.OPERATOR, needed: Callable[[Scope, bytes], Role] = for_operators) -> None:
        self._inner = inner
        self._least = least
        self._needed = needed

    async def identify(self, scope: Scope) -> Caller:
        """Who this is."""
        caller = await self._inner.identify(scope)
        if caller.role < self._least:
            raise forbidden(self._least)
        return caller

    async def verify(self, scope: Scope, body: bytes, caller: Caller) -> Caller:
        """As the one inside; a caller who is known only now has its role only now."""
        proved = await self._inner.verify(scope, body, caller)
        if proved.role < Role.OPERATOR:
            needed = max(self._least, self._needed(scope, body))
            if proved.role < needed:
                raise forbidden(needed)
        return proved


class RateGuard:
    """Implements `Guard` around another: callers come as often as they may, by their name, or by their address where they have none."""

    def __init__(
        self, inner: Guard, limits: Limits, rates: RatesConfig, *, proxies: Sequence[Network] = (), refuse_blind: bool = False
    ) -> None:
        self._inner = inner
        self._limits = limits
        self._rates = rates
        self._proxies = tuple(proxies)
        self._refuse_blind = refuse_blind
        self._blind = False

    async def identify(self, scope: Scope) -> Caller:
        """Who this is, if it is not too soon. Who guesses is limited by the address."""
        try:
            caller = await self._inner.identify(scope)
        except Problem as problem:
            if problem.status == HTTPStatus.UNAUTHORIZED:
                await self._take(scope, ANONYMOUS)
            raise
        await self._take(scope, caller)
        return caller

    async def _take(self, scope: Scope, caller: Caller) -> None:
        """Count one more. Raises Problem where that is one too many.

        Each rate is counted by itself: the moment kept for one says nothing of another, and a key may have another than its owner's token.
        """
        rate = self._rates.of(caller)
        if rate == UNLIMITED:
            return
        where, who = ("address", self._address(scope)) if caller is ANONYMOUS else ("caller", caller.owner)
        try:
            taken = await self._limits.take(f"{where}:{rate.per_second!r}/{rate.burst}:{who}", rate)
        except StateError as exc:
            self._cannot_see(exc, where)
            return
        self._blind = False
        say_also(scope, _headers(rate, taken))
        sage_obs.series(RATE_LIMIT_DECISIONS, where, "allowed" if taken.allowed else "refused").add()
        if not taken.allowed:
            wait = max(RETRY_SOON_SECONDS, math.ceil(taken.retry_after))
            raise Problem(HTTPStatus.TOO_MANY_REQUESTS, ErrorType.RATE_LIMITED, "You ask too often; wait a little.", retry_after=wait)

    async def verify(self, scope: Scope, body: bytes, caller: Caller) -> Caller:
        """As the one inside; a caller who is known only now is limited by name, too."""
        proved = await self._inner.verify(scope, body, caller)
        if proved is not caller:
            await self._take(scope, proved)
        return proved

    def expose(self) -> None:
        """Put what can be counted on /metrics before it happens."""
        for where in ("address", "caller"):
            for decision in ("allowed", "refused", "error"):
                sage_obs.series(RATE_LIMIT_DECISIONS, where, decision).add(0)

    def _address(self, scope: Scope) -> str:
        peer = scope.get("client")
        lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"] if self._proxies else []
        return client_address(str(peer[0]) if peer else "", b",".join(lines).decode("latin-1"), self._proxies)

    def _cannot_see(self, error: StateError, where: str) -> None:
        """Say once that limits cannot be asked, and refuse where that is wanted."""
        sage_obs.series(RATE_LIMIT_DECISIONS, where, "error").add()
        if not self._blind:
            self._blind = True
            _log.warning(
                "rate limits cannot be asked", extra={"reason": error.message, "callers": "refused" if self._refuse_blind else "let in"}
            )
        if self._refuse_blind:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE, ErrorType.UNAVAILABLE, "Rate limits cannot be asked now.", retry_after=RETRY_SOON_SECONDS
            ) from error


def _headers(rate: Rate, taken: Taken) -> tuple[tuple[bytes, bytes], ...]:
    """The usual three; the reset is in seconds from now."""
    return (
        (b"x-ratelimit-limit", b"%d" % rate.burst),
        (b"x-ratelimit-remaining", b"%d" % taken.remaining),
        (b"x-ratelimit-reset", b"%d" % math.ceil(taken.reset_after)),
    )
