"""did:sage:web, SAGE's registry that is no blockchain (SAGE specification 0.10.0, chapter 9, profile `web`).

A record is read anew for every request, as that chapter has it, from origins that the operator has named. SAGE's other kinds of
registry are chains: this agent asks none, and knows such a DID from the file registry only.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidSignature

from sage_agent.security.did import Resolved, UnresolvableError
from sage_agent.security.fetching import Fetcher
from sage_agent.security.keys import KeyUnusableError, VerifyingKey, from_base64url, of_sage

PREFIX: Final = "did:sage:web:"
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN: Final = re.compile(rf"(?=.{{1,64}}$)(?!.*\.\d+$)(?:{_LABEL}\.)+{_LABEL}", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_LONGEST_LIFE: Final = 5
"""Seconds from `issued` to `expires`."""
_MOST_KEYS: Final = 128


def split(did: str) -> tuple[str, str]:
    """The domain and the agent of a did:sage:web. Raises UnresolvableError."""
    domain, _, agent = did.removeprefix(PREFIX).partition(":")
    if not _DOMAIN.fullmatch(domain) or not _NAME.fullmatch(agent) or agent in {".", ".."}:
        raise UnresolvableError("id.malformed")
    return domain, agent


async def resolve(did: str, fetcher: Fetcher, *, origins: Mapping[str, int], now: float) -> Resolved:
    """The keys of a did:sage:web at one of these origins (domain and port); never to be remembered. Raises UnresolvableError."""
    domain, agent = split(did)
    if domain not in origins:
        raise UnresolvableError("record.origin-not-allowed")
    fetched = await fetcher.get(domain, origins[domain], f"/.well-known/sage/agents/{agent}")
    if "no-store" not in fetched.cache_control.lower():
        raise UnresolvableError("record.cacheable")
    return Resolved(read_record(fetched.document, did, now=now), 0.0)


def read_record(envelope: object, did: str, *, now: float) -> Mapping[str, VerifyingKey]:
    """The keys an answer of a registry shows as accepted and proven. Raises UnresolvableError."""
    if not isinstance(envelope, dict) or set(envelope) != {"record", "issued", "expires"}:
        raise UnresolvableError("record.malformed")
    issued, expires, record = envelope["issued"], envelope["expires"], envelope["record"]
    if type(issued) is not int or type(expires) is not int or not issued <= now < expires or expires - issued > _LONGEST_LIFE:
        raise UnresolvableError("record.stale")
    if not isinstance(record, dict) or record.get("id") != did:
        raise UnresolvableError("record.of-another")
    if record.get("state") != "active":
        raise UnresolvableError("record.inactive")
    entries = record.get("keys")
    if not isinstance(entries, list) or len(entries) > _MOST_KEYS:
        raise UnresolvableError("record.malformed")
    names = [entry.get("name") if isinstance(entry, dict) else None for entry in entries]
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names) or len(set(names)) != len(names):
        raise UnresolvableError("record.malformed")
    return {entry["name"]: key for entry in entries if (key := _usable(entry, did, now)) is not None}


def _usable(entry: Mapping[str, Any], did: str, now: float) -> VerifyingKey | None:
    """The key of an entry, where it can be used now and whoever registered it had its private half."""
    expires = entry.get("expires")
    if entry.get("state") != "accepted" or (expires is not None and (type(expires) is not int or now >= expires)):
        return None
    algorithm, proof = entry.get("alg"), entry.get("proof")
    try:
        data = from_base64url(str(entry.get("key")))
        key = of_sage(str(algorithm), data)
        if not isinstance(proof, dict) or proof.get("signer") != f"{did}#{entry['name']}":
            return None
        domain, agent = split(did)
        challenge = possession_challenge(f"web:{domain}", agent, entry["name"], str(algorithm), data)
        key.algorithm(public_key=key.key).verify(signature=from_base64url(str(proof.get("value"))), message=challenge)
    except (KeyUnusableError, InvalidSignature, ValueError):
        return None
    except Exception as exc:
        raise UnresolvableError("pop.bad") from exc
    return key


def possession_challenge(registry: str, agent: str, name: str, algorithm: str, key: bytes) -> bytes:
    """What a key signs to prove that whoever registers it has its private half (section 4)."""
    fields: Collection[bytes] = (registry.encode(), agent.encode(), name.encode(), algorithm.encode(), key)
    return b"sage-pop-0.10.0" + b"".join(len(field).to_bytes(2) + field for field in fields)
