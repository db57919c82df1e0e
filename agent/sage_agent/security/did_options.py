"""The settings of signed requests, as a table."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from sage_agent.callers import Role
from sage_obs.settings import Option, parse_bool, parse_choice, parse_seconds, parse_text

MODES: Final = ("off", "optional", "required")
_ROLES: Final = {role.name.lower(): role for role in Role}
_DOMAIN: Final = re.compile(r"did:(?:sage:)?web:[^:]+", re.ASCII)
_CALLER_KEYS: Final = frozenset({"did", "tenant", "role"})
_WINDOW: Final = (1.0, 3600.0)
_TIMEOUT: Final = (0.1, 60.0)


@dataclass(frozen=True, slots=True)
class DidCaller:
    """Who may ask: a DID, or the beginning of many where it ends in `*`, with its tenant and role."""

    did: str
    tenant: str
    role: Role

    def matches(self, did: str) -> bool:
        """Whether a DID is meant. A domain is meant whole: `did:web:a.example*` is a.example with all below it, and no a.example.evil."""
        if not self.did.endswith("*"):
            return did == self.did
        begin = self.did[:-1]
        return did.startswith(begin) and (_DOMAIN.fullmatch(begin) is None or did[len(begin) :][:1] in {"", ":"})


def parse_callers(value: object) -> tuple[DidCaller, ...]:
    """A list of {did, tenant, role}, or the same as JSON."""
    return tuple(_caller(one, f"caller {number}") for number, one in enumerate(_list(value), 1))


def _caller(given: object, where: str) -> DidCaller:
    if isinstance(given, str):
        given = {"did": given}
    if not isinstance(given, dict) or not isinstance(given.get("did"), str):
        raise ValueError(f"{where}: expected a mapping with `did`")
    unknown = [str(key) for key in given if key not in _CALLER_KEYS]
    if unknown:
        raise ValueError(f"{where}: unknown key `{unknown[0]}`; there are did, tenant, role")
    did, role = given["did"].strip(), str(given.get("role", "operator"))
    if did != "*" and not re.fullmatch(r"did:[a-z0-9]+:[^*\s]*\*?", did, re.ASCII):
        raise ValueError(f"{where}: `did` must be a DID, the beginning of one and *, or * alone")
    if role not in _ROLES:
        raise ValueError(f"{where}: `role` must be one of {', '.join(_ROLES)}")
    return DidCaller(did, str(given.get("tenant") or ""), _ROLES[role])


def parse_origins(value: object) -> dict[str, int]:
    """Domains, each with a port where it is not 443, as a list or separated by commas; by domain."""
    origins = {}
    for one in _list(value, split=True):
        host, _, port = str(one).strip().removeprefix("https://").partition(":")
        if not host or (port and not port.isdecimal()):
            raise ValueError("expected domains such as agents.example.com")
        origins[host] = int(port or 443)
    return origins


def parse_own_urls(value: object) -> tuple[str, ...]:
    """Addresses without a path, as a list or separated by commas."""
    urls = tuple(str(one).strip().rstrip("/") for one in _list(value, split=True))
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path or parts.query or "@" in parts.netloc:
            raise ValueError("expected addresses such as https://agent.example.com, without a path")
    return urls


def _list(value: object, *, split: bool = False) -> list[Any]:
    if isinstance(value, str):
        if split and not value.lstrip().startswith("["):
            return [one for one in value.split(",") if one.strip()]
        try:
            value = json.loads(value or "[]")
        except json.JSONDecodeError:
            raise ValueError("expected a JSON list") from None
    if isinstance(value, tuple):
        return list(value)
    if not isinstance(value, list):
        raise ValueError("expected a list")
    return value


def _between(low: float, high: float, text: str) -> Any:
    def parse(value: object) -> float:
        seconds = parse_seconds(value)
        if not low <= seconds <= high:
            raise ValueError(f"expected a duration {text}")
        return seconds

    return parse


DID_OPTIONS: Final[Mapping[str, Option]] = {
    "did_mode": Option(
        "security.did.mode", ("SAGE_DID_MODE",), parse_choice(*MODES), "off", "whether requests may or must be signed by a DID (RFC 9421)"
    ),
    "did_callers": Option(
        "security.did.callers", ("SAGE_DID_CALLERS",), parse_callers, (), "whose signatures count: a list of {did, tenant, role}"
    ),
    "did_own_urls": Option(
        "security.did.own_urls",
        ("SAGE_DID_OWN_URLS",),
        parse_own_urls,
        (),
        "the addresses callers sign for; none means the address a connection was made to",
    ),
    "did_max_age": Option(
        "security.did.max_age",
        ("SAGE_DID_MAX_AGE",),
        _between(*_WINDOW, "from 1s to 1h"),
        300.0,
        "how far a signature's time may be from ours, in seconds",
    ),
    "did_registry": Option("security.did.registry", ("SAGE_DID_REGISTRY",), parse_text, "", "a JSON file of DID documents by DID"),
    "did_sage_origins": Option(
        "security.did.sage_origins", ("SAGE_DID_SAGE_ORIGINS",), parse_origins, {}, "domains whose did:sage:web records are read"
    ),
    "did_allow_private": Option(
        "security.did.allow_private", ("SAGE_DID_ALLOW_PRIVATE",), parse_bool, False, "whether documents come from private addresses too"
    ),
    "did_ca_file": Option(
        "security.did.ca_file", ("SAGE_DID_CA_FILE",), parse_text, "", "certificate authorities for documents; none means the system's"
    ),
    "did_fetch_timeout": Option(
        "security.did.fetch_timeout",
        ("SAGE_DID_FETCH_TIMEOUT",),
        _between(*_TIMEOUT, "from 100ms to 60s"),
        5.0,
        "the longest a document may take, in seconds",
    ),
    "did_cache": Option(
        "performance.cache.did_cache",
        ("SAGE_DID_CACHE",),
        parse_bool,
        True,
        "whether did:web documents are remembered, as long as their server allows and for `ttl` at most",
    ),
}
"""By argument name."""
