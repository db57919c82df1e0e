"""The settings of who may ask and how often, as a table."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sage_agent.callers import Role
from sage_agent.security.fingerprints import fingerprint
from sage_agent.state.base import UNLIMITED, Rate
from sage_obs.settings import Option, parse_amount, parse_bool, parse_choice, parse_int, parse_seconds, parse_text

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures of tokens that are accepted: all of them by a private key, which is nowhere near this agent."""
_ENTRY: Final = frozenset({"id", "tenant", "role", "key", "sha256", "rate_limit"})
_RATE: Final = frozenset({"per_second", "burst"})
_RATES: Final = (1e-5, 1e6)
"""Messages a second: one a day, and more than any store counts."""
_SHORTEST: Final = 16
"""Characters of a key: shorter ones can be guessed."""
_LONGEST_LEASE: Final = 10.0
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """An API key by its SHA-256 in hexadecimal, who has it, and its own rate, None for that of its role."""

    id: str
    tenant: str
    role: Role
    sha256: str = field(repr=False)
    rate: Rate | None = None


def parse_names(value: object) -> tuple[str, ...]:
    """Names as a list, or separated by commas."""
    names = value if isinstance(value, list) else parse_text(value).split(",")
    return tuple(name for name in (parse_text(one).strip() for one in names) if name)


def parse_algorithms(value: object) -> tuple[str, ...]:
    """Some of the algorithms that are accepted."""
    names = parse_names(value)
    unknown = [name for name in names if name not in ALGORITHMS]
    if unknown or not names:
        raise ValueError(f"expected some of {', '.join(ALGORITHMS)}")
    return names


def parse_networks(value: object) -> tuple[Network, ...]:
    """Addresses and networks, such as `10.0.0.0/8`."""
    try:
        return tuple(ipaddress.ip_network(name) for name in parse_names(value))
    except ValueError:
        raise ValueError("expected addresses or networks, such as 10.0.0.0/8") from None


def parse_api_keys(value: object) -> tuple[KeyEntry, ...]:
    """A list of {id, tenant, role, rate_limit, sha256 or key}, or the same as JSON. What is wrong is said without the values."""
    if isinstance(value, str):
        try:
            value = json.loads(value or "[]")
        except json.JSONDecodeError:
            raise ValueError("expected a JSON list of objects") from None
    if not isinstance(value, list):
        raise ValueError("expected a list")
    entries = tuple(_entry(one, f"key {number}") for number, one in enumerate(value, 1))
    if len({entry.sha256 for entry in entries}) < len(entries):
        raise ValueError("the same key is there twice")
    return entries


def _entry(given: Any, where: str) -> KeyEntry:
    if not isinstance(given, dict) or not given.get("id"):
        raise ValueError(f"{where}: expected a mapping with `id`")
    unknown = [str(name) for name in given if name not in _ENTRY]
    if unknown:
        raise ValueError(f"{where}: unknown `{unknown[0]}`; there are {', '.join(sorted(_ENTRY))}")
    role = _role(given.get("role") or Role.OPERATOR.name, where)
    rate = _rate(given["rate_limit"], f"{where}: `rate_limit`") if given.get("rate_limit") is not None else None
    return KeyEntry(str(given["id"]), str(given.get("tenant") or ""), role, _digest(given, where), rate)


def _digest(given: Mapping[str, Any], where: str) -> str:
    key, sha256 = given.get("key"), str(given.get("sha256") or "").lower()
    if bool(key) == bool(sha256):
        raise ValueError(f"{where}: expected either `key` or `sha256`")
    if key:
        if len(str(key)) < _SHORTEST:
            raise ValueError(f"{where}: the key is shorter than {_SHORTEST} characters")
        return fingerprint(str(key))
    if not re.fullmatch(r"[0-9a-f]{64}", sha256, re.ASCII):
        raise ValueError(f"{where}: `sha256` is 64 hexadecimal digits; `sage-agent keys new` prints them")
    return sha256


def parse_per_second(value: object) -> float:
    """How many a second: 0 for as many as come, or a number that can be kept count of."""
    number = parse_amount(value)
    if number and not _RATES[0] <= number <= _RATES[1]:
        raise ValueError("expected 0, or a number from 0.00001 (one a day) to 1000000")
    return number


parse_burst: Final = parse_int(0, 1_000_000)


def make_rate(per_second: float, burst: int) -> Rate:
    """A rate as it is set: 0 a second is none, a burst of 0 what two seconds bring."""
    return Rate(per_second, burst or max(1, round(2 * per_second))) if per_second else UNLIMITED


def parse_role_rates(value: object) -> dict[Role, Rate]:
    """A list of {role, per_second, burst}, or the same as JSON; by role."""
    if isinstance(value, str):
        try:
            value = json.loads(value or "[]")
        except json.JSONDecodeError:
            raise ValueError("expected a JSON list of objects") from None
    if not isinstance(value, list):
        raise ValueError("expected a list")
    rates: dict[Role, Rate] = {}
    for number, given in enumerate(value, 1):
        if not isinstance(given, dict) or "role" not in given:
            raise ValueError(f"rate {number}: expected a mapping with `role`")
        role = _role(given["role"], f"rate {number}")
        if role in rates:
            raise ValueError(f"rate {number}: {role.name.lower()} is there twice")
        rates[role] = _rate({name: one for name, one in given.items() if name != "role"}, f"rate {number}")
    return rates


def parse_lease(value: object) -> float:
    """A duration in seconds of at most ten."""
    seconds = parse_seconds(value)
    if not 0 <= seconds <= _LONGEST_LEASE:
        raise ValueError(f"expected a duration from 0 to {_LONGEST_LEASE:g}s")
    return seconds


def _role(given: object, where: str) -> Role:
    role = str(given).upper()
    if role not in Role.__members__:
        raise ValueError(f"{where}: `role` is one of {', '.join(one.name.lower() for one in Role)}")
    return Role[role]


def _rate(given: object, where: str) -> Rate:
    if not isinstance(given, dict) or "per_second" not in given or not _RATE.issuperset(given):
        raise ValueError(f"{where}: expected `per_second`, and `burst` where it is not what two seconds bring")
    try:
        return make_rate(parse_per_second(given["per_second"]), parse_burst(given.get("burst", 0)))
    except ValueError as exc:
        raise ValueError(f"{where}: {exc}") from None


def parse_long_secret(value: object) -> str:
    """Nothing, or a secret that cannot be guessed."""
    text = parse_text(value)
    if text and len(text) < _SHORTEST:
        raise ValueError(f"expected at least {_SHORTEST} characters")
    return text


_LOOPBACK: Final = parse_networks("127.0.0.0/8,::1/128")

SECURITY_OPTIONS: Final[Mapping[str, Option]] = {
    "api_keys": Option(
        "security.api_keys",
        ("SAGE_API_KEYS",),
        parse_api_keys,
        (),
        "who may ask: a list of {id, tenant, role, rate_limit, sha256 or key}",
        secret=True,
    ),
    "api_keys_file": Option(
        "security.api_keys_file", ("SAGE_API_KEYS_PATH",), parse_text, "", "a YAML file with more of them, read anew when it changes"
    ),
    "jwt_issuer": Option("security.jwt.issuer", ("SAGE_JWT_ISSUER",), parse_text, "", "who issues the tokens that are accepted"),
    "jwt_audience": Option("security.jwt.audience", ("SAGE_JWT_AUDIENCE",), parse_text, "", "for whom they are issued: this agent"),
    "jwt_jwks": Option(
        "security.jwt.jwks", ("SAGE_JWT_JWKS",), parse_text, "", "the issuer's public keys: an https:// address, or the path of a file"
    ),
    "jwt_algorithms": Option(
        "security.jwt.algorithms", ("SAGE_JWT_ALGORITHMS",), parse_algorithms, ("RS256", "ES256", "EdDSA"), "how they may be signed"
    ),
    "jwt_leeway": Option("security.jwt.leeway", ("SAGE_JWT_LEEWAY",), parse_seconds, 30.0, "how far clocks may differ, in seconds"),
    "jwt_tenant_claim": Option("security.jwt.tenant_claim", ("SAGE_JWT_TENANT_CLAIM",), parse_text, "tenant", "the claim with the tenant"),
    "jwt_role_claim": Option("security.jwt.role_claim", ("SAGE_JWT_ROLE_CLAIM",), parse_text, "role", "the claim with the role"),
    "rate_per_second": Option(
        "security.rate_limit.per_second",
        ("SAGE_RATE_LIMIT_PER_SECOND",),
        parse_per_second,
        0.0,
        "messages a second of one caller; 0: no limit",
    ),
    "rate_burst": Option("security.rate_limit.burst", ("SAGE_RATE_LIMIT_BURST",), parse_burst, 0, "at once; 0: those of two seconds"),
    "rate_roles": Option(
        "security.rate_limit.roles", ("SAGE_RATE_LIMIT_ROLES",), parse_role_rates, {}, "other rates: a list of {role, per_second, burst}"
    ),
    "rate_lease": Option(
        "security.rate_limit.lease",
        ("SAGE_RATE_LIMIT_LEASE",),
        parse_lease,
        0.0,
        "how long a worker may keep messages it has taken from a limit, in seconds; what comes back in that time is missing from the burst",
    ),
    "rate_on_error": Option(
        "security.rate_limit.on_error",
        ("SAGE_RATE_LIMIT_ON_ERROR",),
        parse_choice("allow", "refuse"),
        "allow",
        "what happens while the store cannot be asked",
    ),
    "trusted_proxies": Option(
        "server.trusted_proxies", ("SAGE_TRUSTED_PROXIES",), parse_networks, (), "whose X-Forwarded-For is believed: addresses, networks"
    ),
    "tls_allow": Option(
        "server.tls.allow", ("SAGE_TLS_ALLOW",), parse_names, (), "names of client certificates: dns:NAME, dns:*.NAME, uri:URI, uri:URI/*"
    ),
    "audit_path": Option(
        "security.audit.path", ("SAGE_AUDIT_PATH",), parse_text, "", "the audit log's file, such as /var/log/sage-agent/audit.jsonl"
    ),
    "audit_key": Option(
        "security.audit.key", ("SAGE_AUDIT_KEY",), parse_long_secret, "", "what its records are sealed with (HMAC-SHA256)", secret=True
    ),
    "audit_max_bytes": Option(
        "security.audit.max_bytes",
        ("SAGE_AUDIT_MAX_BYTES",),
        parse_int(4096, 1 << 40),
        64 * 1024 * 1024,
        "at what size its file is set aside and another begun",
    ),
    "audit_keep": Option("security.audit.keep", ("SAGE_AUDIT_KEEP",), parse_int(1, 10_000), 20, "how many of those set aside are kept"),
    "admin_enabled": Option("security.admin.enabled", ("SAGE_ADMIN_ENABLED",), parse_bool, False, "whether there is /admin/"),
    "admin_token": Option(
        "security.admin.token", ("SAGE_ADMIN_TOKEN",), parse_long_secret, "", "whoever has it may do all of that", secret=True
    ),
    "admin_networks": Option(
        "security.admin.networks", ("SAGE_ADMIN_NETWORKS",), parse_networks, _LOOPBACK, "from where: addresses, networks"
    ),
}
"""By argument name."""
