"""DIDs, and the keys a DID's document names for proving who one is (https://www.w3.org/TR/did-core/)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sage_agent.security.keys import KeyUnusableError, VerifyingKey, of_jwk, of_multibase

LONGEST: Final = 512
"""Characters of a DID URL."""
_DID: Final = re.compile(r"did:[a-z0-9]+:[A-Za-z0-9._:%-]*[A-Za-z0-9._-]", re.ASCII)
_FRAGMENT: Final = re.compile(r"[A-Za-z0-9._:-]{1,256}", re.ASCII)
_MOST_KEYS: Final = 128


class UnresolvableError(Exception):
    """There are no keys to be had for a DID; `reason` is a word for the log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class DidUrl:
    """A DID and the name of one of its keys, "" for the only one."""

    did: str
    fragment: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """The keys of a DID by the fragment that names them, and for how many seconds they may be remembered."""

    keys: Mapping[str, VerifyingKey]
    seconds: float

    def key(self, fragment: str) -> tuple[str, VerifyingKey]:
        """A key and its name; without one, the only key. Raises UnresolvableError."""
        if not fragment and len(self.keys) == 1:
            return next(iter(self.keys.items()))
        if fragment not in self.keys:
            raise UnresolvableError("key.not-in-record")
        return fragment, self.keys[fragment]


def parse_did_url(text: str) -> DidUrl:
    """Read `did:…` or `did:…#key`. Raises UnresolvableError."""
    did, hash_sign, fragment = text.partition("#")
    if len(text) > LONGEST or not _DID.fullmatch(did) or (hash_sign and not _FRAGMENT.fullmatch(fragment)):
        raise UnresolvableError("id.malformed")
    return DidUrl(did, fragment)


def keys_of_did_key(did: str) -> Mapping[str, VerifyingKey]:
    """The key that a did:key is. Raises UnresolvableError."""
    value = did.removeprefix("did:key:")
    try:
        return {value: of_multibase(value)}
    except KeyUnusableError:
        raise UnresolvableError("key.unusable") from None


def keys_of_document(document: object, did: str) -> Mapping[str, VerifyingKey]:
    """The keys a document lets its subject prove itself with. Raises UnresolvableError for the document of another DID."""
    if not isinstance(document, dict) or document.get("id") != did:
        raise UnresolvableError("record.of-another")
    if document.get("deactivated") is True:
        raise UnresolvableError("record.inactive")
    named = {_name(method, did): method for method in _methods(document.get("verificationMethod"))}
    keys = {}
    for used in (*_methods(document.get("authentication")), *_methods(document.get("assertionMethod"))):
        name = _name(used, did)
        method = used if isinstance(used, dict) else named.get(name)
        if name and isinstance(method, dict) and method.get("controller", did) == did:
            try:
                keys[name] = _key(method)
            except KeyUnusableError:
                continue
    return keys


def _methods(value: object) -> Iterator[Any]:
    if isinstance(value, list):
        yield from value[:_MOST_KEYS]


def _name(method: Any, did: str) -> str:
    """The fragment of a verification method, which must be of this DID; "" where it is not."""
    text = method.get("id") if isinstance(method, dict) else method
    if not isinstance(text, str):
        return ""
    owner, _, fragment = text.partition("#")
    return fragment if owner in {"", did} and _FRAGMENT.fullmatch(fragment) else ""


def _key(method: Mapping[str, Any]) -> VerifyingKey:
    if "publicKeyJwk" in method:
        return of_jwk(method["publicKeyJwk"])
    return of_multibase(str(method.get("publicKeyMultibase", "")))
