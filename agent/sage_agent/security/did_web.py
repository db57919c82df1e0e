"""did:web (https://w3c-ccg.github.io/did-method-web/): a DID whose document its domain serves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from sage_agent.security.did import Resolved, UnresolvableError, keys_of_document
from sage_agent.security.fetching import Fetched, Fetcher

_HOST: Final = re.compile(r"(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_LAST_PORT: Final = 65_535
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}", re.ASCII)
_MAX_AGE: Final = re.compile(r"(?:^|[,\s])max-age=(\d{1,9})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Location:
    """Where a document is."""

    host: str
    port: int
    path: str


def locate(did: str) -> Location:
    """Where the document of a did:web is. Raises UnresolvableError."""
    domain, *segments = did.removeprefix("did:web:").split(":")
    host, _, port = unquote(domain).partition(":")
    if not _HOST.fullmatch(host) or (port and not re.fullmatch(r"[1-9]\d{0,4}", port, re.ASCII)) or int(port or 443) > _LAST_PORT:
        raise UnresolvableError("id.malformed")
    if not all(_SEGMENT.fullmatch(one) and one not in {".", ".."} for one in segments):
        raise UnresolvableError("id.malformed")
    path = "/".join(("", *segments, "did.json")) if segments else "/.well-known/did.json"
    return Location(host, int(port or 443), path)


async def resolve(did: str, fetcher: Fetcher, *, ttl: float) -> Resolved:
    """The keys of a did:web; remembered for at most `ttl` seconds, for less where its server says so. Raises UnresolvableError."""
    where = locate(did)
    fetched = await fetcher.get(where.host, where.port, where.path)
    return Resolved(keys_of_document(fetched.document, did), _seconds(fetched, ttl))


def _seconds(fetched: Fetched, ttl: float) -> float:
    said = fetched.cache_control.lower()
    if "no-store" in said or "no-cache" in said:
        return 0.0
    age = _MAX_AGE.search(said)
    return ttl if age is None else min(ttl, float(age.group(1)))
