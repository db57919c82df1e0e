"""Who may ask and how often, as read from the settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sage_agent.callers import ANONYMOUS, Caller, Role
from sage_agent.security.options import KeyEntry, Network, make_rate
from sage_agent.state.base import UNLIMITED, Rate
from sage_obs.errors import ConfigError

_ALLOWED: Final = re.compile(r"dns:(\*\.)?[A-Za-z0-9._-]+|uri:[a-z][a-z0-9+.-]*:(//[^/*\s]+)?[^*\s]*[^*/\s](/\*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class JwtConfig:
    """Whose tokens are accepted, by which keys and algorithms, and what is read from them; `leeway` is in seconds."""

    issuer: str
    audience: str
    jwks: str
    algorithms: tuple[str, ...]
    leeway: float
    tenant_claim: str
    role_claim: str


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """Where the audit log is, what its records are sealed with, and of how many parts of how many bytes it consists."""

    path: Path
    key: str = field(repr=False)
    max_bytes: int
    keep: int


@dataclass(frozen=True, slots=True)
class AdminConfig:
    """From where the running agent may be changed; `token` is one way to prove that one may, "" for none."""

    token: str = field(repr=False)
    networks: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class RatesConfig:
    """How often callers may come: each by its own rate, else by that of its role, else by that of everybody, who nobody knows too."""

    everybody: Rate
    roles: Mapping[Role, Rate]

    def of(self, caller: Caller) -> Rate:
        """The rate of a caller."""
        if caller is ANONYMOUS:
            return self.everybody
        return caller.rate or self.roles.get(caller.role) or self.everybody


@dataclass(frozen=True, slots=True)
class SecurityConfig:
    """All of it. `rates` is None where nobody is limited; `refuse_blind` is what happens while limits cannot be asked.

    `lease` is how long a worker may keep what it has taken from a limit, in seconds.
    """

    api_keys: tuple[KeyEntry, ...]
    api_keys_file: Path | None
    jwt: JwtConfig | None
    rates: RatesConfig | None
    lease: float
    refuse_blind: bool
    proxies: tuple[Network, ...]
    allow: tuple[str, ...]
    audit: AuditConfig | None
    admin: AdminConfig | None

    @property
    def identifies(self) -> bool:
        """Whether callers have to say who they are."""
        return bool(self.api_keys or self.api_keys_file or self.jwt or self.allow)


def read_security(plain: Mapping[str, Any]) -> SecurityConfig:
    """Read the settings by argument name. Raises ConfigError for half a configuration."""
    found = SecurityConfig(
        api_keys=plain["api_keys"],
        api_keys_file=Path(plain["api_keys_file"]) if plain["api_keys_file"] else None,
        jwt=_jwt(plain),
        rates=_rates(plain),
        lease=plain["rate_lease"],
        refuse_blind=plain["rate_on_error"] == "refuse",
        proxies=plain["trusted_proxies"],
        allow=_allowed(plain["tls_allow"]),
        audit=_audit(plain),
        admin=AdminConfig(plain["admin_token"], plain["admin_networks"]) if plain["admin_enabled"] else None,
    )
    if found.admin is not None and not found.admin.token and not found.identifies:
        raise ConfigError(
            "security.admin.enabled is true, and nobody can prove that they are an admin.",
            hint="Set security.admin.token, or have callers identified and give one the role admin.",
        )
    return found


def _rates(plain: Mapping[str, Any]) -> RatesConfig | None:
    """None where there can be no limit: the keys of a file may have rates at any time."""
    rates = RatesConfig(make_rate(plain["rate_per_second"], plain["rate_burst"]), plain["rate_roles"])
    own = [entry.rate for entry in plain["api_keys"] if entry.rate is not None]
    limited = any(rate != UNLIMITED for rate in (rates.everybody, *rates.roles.values(), *own))
    return rates if limited or plain["api_keys_file"] else None


def _audit(plain: Mapping[str, Any]) -> AuditConfig | None:
    if not plain["audit_path"]:
        if plain["audit_key"]:
            raise ConfigError("security.audit.key has nothing to seal.", hint="Set security.audit.path, too.")
        return None
    return AuditConfig(Path(plain["audit_path"]), plain["audit_key"], plain["audit_max_bytes"], plain["audit_keep"])


def _jwt(plain: Mapping[str, Any]) -> JwtConfig | None:
    needed = {name: plain[f"jwt_{name}"] for name in ("issuer", "audience", "jwks")}
    if not any(needed.values()):
        return None
    missing = [f"security.jwt.{name}" for name, value in needed.items() if not value]
    if missing:
        raise ConfigError(f"Tokens cannot be checked without {' and '.join(missing)}.", hint="Set all three, or none.")
    if "://" in needed["jwks"] and not needed["jwks"].startswith("https://"):
        raise ConfigError("security.jwt.jwks is not an https:// address: whoever answers for it could issue tokens.", hint="Use https://.")
    return JwtConfig(
        **needed,
        algorithms=plain["jwt_algorithms"],
        leeway=plain["jwt_leeway"],
        tenant_claim=plain["jwt_tenant_claim"],
        role_claim=plain["jwt_role_claim"],
    )


def _allowed(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names as they are compared. Raises ConfigError for those that allow nobody, or more than they seem to."""
    for name in names:
        if not _ALLOWED.fullmatch(name):
            raise ConfigError(
                f"server.tls.allow has {name!r}, which is no name that can be allowed.",
                hint="Write dns:NAME, dns:*.NAME, uri:URI, or uri:URI/* for all below it.",
            )
    return tuple(name.lower() if name.startswith("dns:") else name for name in names)
