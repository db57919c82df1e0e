"""Who a signed request is from. Whatever is wrong with a signature, the caller is told the same; the log has the reason."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from sage_agent.callers import ANONYMOUS, Caller
from sage_agent.problems import Problem, unavailable
from sage_agent.security.did import UnresolvableError
from sage_agent.security.did_config import DidConfig
from sage_agent.security.did_options import DidCaller
from sage_agent.security.resolver import Resolver
from sage_agent.security.signatures import Claim, Headers, RefusedError, Request, check_claim, read_claim, verify
from sage_agent.state.base import Nonces, StateError
from sage_agent.web.guard import Guard
from sage_agent.web.wire import Scope
from sage_obs.conventions import ErrorType

_log = logging.getLogger("sage_agent")
_SIGNED: Final = frozenset({b"signature", b"signature-input"})
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_SLACK_SECONDS: Final = 5.0
"""What a nonce is kept beyond the time its signature could be used: two replicas' clocks differ."""


class DidGuard:
    """Implements `Guard`: signed requests are verified here, others are left to `inner`, or refused where all must be signed."""

    def __init__(
        self, config: DidConfig, resolver: Resolver, nonces: Nonces, inner: Guard, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._config = config
        self._resolver = resolver
        self._nonces = nonces
        self._inner = inner
        self._clock = clock

    async def identify(self, scope: Scope) -> Caller:
        """Nobody yet, where the request is signed. Raises Problem (401), and what `inner` does."""
        if _is_signed(scope):
            return ANONYMOUS
        if self._config.mode == "required":
            raise _refused("sig.missing")
        return await self._inner.identify(scope)

    async def verify(self, scope: Scope, body: bytes, caller: Caller) -> Caller:
        """The DID that signed the request. Raises Problem (401; 503 where nonces cannot be kept)."""
        if not _is_signed(scope):
            return await self._inner.verify(scope, body, caller)
        try:
            claim = read_claim(scope["headers"])
            check_claim(claim, now=self._clock(), window=self._config.max_age, body=body)
            allowed = _allowed(self._config.callers, claim.who.did)
            request = Request(scope["method"], self._url(scope), Headers(scope["headers"]))
            fragment, key = (await self._resolver.resolve(claim.who.did)).key(claim.who.fragment)
            verify(request, claim, key, body)
            await self._claim_nonce(claim, fragment)
        except (RefusedError, UnresolvableError) as exc:
            raise _refused(exc.reason) from None
        return Caller(claim.who.did, tenant=allowed.tenant, role=allowed.role, how="did")

    async def close(self) -> None:
        """Let go of the connections."""
        await self._resolver.close()

    async def _claim_nonce(self, claim: Claim, fragment: str) -> None:
        """Use the nonce up, for as long as the signature would be accepted; only now, or strangers could use up others'."""
        seconds = max(1.0, claim.created + self._config.max_age - self._clock() + _SLACK_SECONDS)
        try:
            fresh = await self._nonces.claim(f"did {claim.who.did}#{fragment}", claim.nonce, seconds=seconds)
        except StateError:
            raise unavailable("The agent cannot check signatures now; try again.") from None
        if not fresh:
            raise RefusedError("sig.replay")

    def _url(self, scope: Scope) -> str:
        """The address the caller must have signed: one of ours. Raises RefusedError for a request that was meant for somebody else."""
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1:
            raise RefusedError("sig.authority")
        base = self._base(scope, hosts[0].lower())
        query = scope["query_string"].decode("latin-1")
        return f"{base}{scope['raw_path'].decode('latin-1')}{'?' + query if query else ''}"

    def _base(self, scope: Scope, host: str) -> str:
        for url in self._config.own_urls:
            scheme, _, authority = url.partition("://")
            if host.removesuffix(_DEFAULT_PORTS[scheme]) == authority.lower().removesuffix(_DEFAULT_PORTS[scheme]):
                return f"{scheme}://{host}"
        server = scope.get("server")
        if not self._config.own_urls and server and host in _literals(*server):
            return f"{scope['scheme']}://{host}"
        raise RefusedError("sig.authority")


def _literals(address: str, port: int) -> Sequence[str]:
    literal = f"[{address}]" if ":" in address else address
    return (f"{literal}:{port}", literal) if port in {80, 443} else (f"{literal}:{port}",)


def _is_signed(scope: Scope) -> bool:
    return any(name in _SIGNED for name, _ in scope["headers"])


def _allowed(callers: Sequence[DidCaller], did: str) -> DidCaller:
    """What a DID may do. It is asked before the key is looked for: strangers do not choose whom this agent calls."""
    for one in callers:
        if one.matches(did):
            return one
    raise RefusedError("id.not-allowed")


def _refused(reason: str) -> Problem:
    _log.info("signature refused", extra={"reason": reason})
    return Problem(HTTPStatus.UNAUTHORIZED, ErrorType.SIGNATURE_INVALID, "The request's signature was not accepted.")
