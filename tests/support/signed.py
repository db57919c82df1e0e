"""Signed requests as a server receives them, and a guard that takes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx

from sage_agent.callers import Caller, Role
from sage_agent.security.did import Resolved
from sage_agent.security.did_config import DidConfig
from sage_agent.security.did_guard import DidGuard
from sage_agent.security.did_options import DidCaller
from sage_agent.security.fetching import Fetcher
from sage_agent.security.resolver import Resolver
from sage_agent.security.signer import Signer, make_signer, new_private_key, sign_request, to_pem
from sage_agent.state.memory import memory_state
from sage_agent.web.guard import Guard, OpenGuard
from sage_agent.web.wire import Scope

NOW = 1_800_000_000.0
URL = "https://agent.example/v1/messages?lang=en"
BODY = b'{"parts": [{"kind": "text", "text": "hello"}]}'
CONFIG = DidConfig(
    mode="required",
    callers=(DidCaller("*", "acme", Role.OPERATOR),),
    own_urls=("https://agent.example",),
    max_age=300.0,
    registry=None,
    sage_origins={},
    allow_private=False,
    ca_file="",
    fetch_timeout=1.0,
    ttl=60.0,
)


def new_signer(algorithm: str = "ed25519") -> Signer:
    """A signer with a fresh key, known by its did:key."""
    return make_signer(to_pem(new_private_key(algorithm)))


def signed(
    signer: Signer, *, body: bytes = BODY, url: str = URL, method: str = "POST", now: float = NOW, nonce: str | None = None
) -> Scope:
    """The scope of a signed request."""
    headers = {"content-type": "application/json"} if body else {}
    request = httpx.Request(method, url, content=body or None, headers=headers)
    sign_request(request, signer, now=now, nonce=nonce)
    return scope_of(request)


def scope_of(request: httpx.Request) -> Scope:
    """What a server makes of a request."""
    path, _, query = request.url.raw_path.partition(b"?")
    return {
        "type": "http",
        "method": request.method,
        "scheme": "http",
        "path": path.decode(),
        "raw_path": path,
        "query_string": query,
        "server": ("127.0.0.1", 8080),
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
    }


def guard(*, nonces: Any = None, inner: Guard | None = None, clock: Any = None, resolver: Any = None, **changes: Any) -> DidGuard:
    """A guard whose clock stands still."""
    tick = clock or (lambda: NOW)
    state = memory_state(lambda: NOW)
    found = resolver or Resolver(Fetcher(timeout=1.0, private=False), ttl=60.0, clock=tick)
    return DidGuard(replace(CONFIG, **changes), found, nonces or state.nonces, inner or OpenGuard(), clock=tick)


async def ask(one: Guard, scope: Scope, body: bytes = BODY) -> Caller:
    """Both steps of a guard, as the application takes them."""
    return await one.verify(scope, body, await one.identify(scope))


class Known:
    """A resolver that knows what it was given."""

    def __init__(self, **keys: Resolved) -> None:
        self.keys: dict[str, Resolved] = keys

    async def resolve(self, did: str) -> Resolved:
        """The keys of a DID."""
        return self.keys[did]

    async def close(self) -> None:
        """Nothing to let go of."""
