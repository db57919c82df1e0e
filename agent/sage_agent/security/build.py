"""The configured guards, put together."""

from __future__ import annotations

from typing import Protocol

from sage_agent.a2a.paths import needed_role
from sage_agent.callers import Role
from sage_agent.security.api_keys import ApiKeys
from sage_agent.security.audit import AuditLog
from sage_agent.security.audit_guard import AuditGuard
from sage_agent.security.certificates import Certificates
from sage_agent.security.config import SecurityConfig
from sage_agent.security.did_config import DidConfig
from sage_agent.security.did_open import open_did
from sage_agent.security.guard import CallerGuard, Identification, RateGuard, RoleGuard
from sage_agent.state.base import State
from sage_agent.state.leases import LeasedLimits
from sage_agent.web.guard import Guard, OpenGuard


class Opened(Protocol):
    """What has to be got before anybody can be known by it."""

    async def open(self) -> None:
        """Get it. Raises ConfigError."""


class Closed(Protocol):
    """What holds connections."""

    async def close(self) -> None:
        """Let go of them."""


class Doors:
    """What stands between callers and the routes."""

    def __init__(
        self,
        messages: Guard,
        tasks: Guard,
        admin: Guard | None,
        *,
        rates: RateGuard | None,
        tokens: Opened | None,
        keys: ApiKeys | None,
        did: Closed | None,
    ) -> None:
        """`tasks` stands before A2A, where viewers may read; `admin` knows viewers, too, and is None where nobody is known."""
        self.messages = messages
        self.tasks = tasks
        self.admin = admin
        self._rates = rates
        self._tokens = tokens
        self._keys = keys
        self._did = did

    def renew(self, config: SecurityConfig) -> None:
        """Know callers by the keys that the settings have by now."""
        if self._keys is not None:
            self._keys.renew(config.api_keys)

    def expose(self) -> None:
        """Put what can be counted on /metrics."""
        if self._rates is not None:
            self._rates.expose()

    async def open(self) -> None:
        """Get what callers are known by. Raises ConfigError."""
        if self._tokens is not None:
            await self._tokens.open()

    async def close(self) -> None:
        """Let go of connections."""
        if self._did is not None:
            await self._did.close()


def build_doors(config: SecurityConfig, did: DidConfig, state: State, audit: AuditLog | None) -> Doors:
    """Put the guards together, from the inside: credentials, signatures, how often, which role, who was refused. Raises SageObsError."""
    tokens = None
    if config.jwt is not None:
        from sage_agent.security.tokens import Tokens

        tokens = Tokens(config.jwt)
    guard: Guard = OpenGuard()
    admin: Guard | None = None
    keys = None
    if config.identifies:
        keys = ApiKeys(config.api_keys, config.api_keys_file) if config.api_keys or config.api_keys_file else None
        guard = admin = CallerGuard(Identification(Certificates(config.allow) if config.allow else None, tokens, keys))
    signed = open_did(did, state.nonces, guard)
    guard = signed or guard
    rates = None
    if config.rates is not None:
        limits = state.limits if state.store.kind == "memory" else LeasedLimits(state.limits, seconds=config.lease)
        guard = rates = RateGuard(guard, limits, config.rates, proxies=config.proxies, refuse_blind=config.refuse_blind)
        if admin is not None:
            admin = RateGuard(admin, limits, config.rates, proxies=config.proxies, refuse_blind=config.refuse_blind)
    messages: Guard = RoleGuard(guard)
    tasks: Guard = RoleGuard(guard, least=Role.VIEWER, needed=needed_role)
    if audit is not None:
        messages, tasks = AuditGuard(messages, audit), AuditGuard(tasks, audit)
        admin = None if admin is None else AuditGuard(admin, audit)
    return Doors(messages, tasks, admin, rates=rates, tokens=tokens, keys=keys, did=signed)
