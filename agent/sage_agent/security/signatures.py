"""Signed requests (RFC 9421): what a signature has to cover, how fresh it has to be, and whether it is one.

Reading, freshness and coverage come first and cost little; the key is looked for between them and the verification.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import http_sf
from http_message_signatures import HTTPMessageVerifier, HTTPSignatureKeyResolver
from http_message_signatures.digests import ContentDigest
from http_message_signatures.exceptions import HTTPMessageSignaturesException

from sage_agent.security.did import DidUrl, UnresolvableError, parse_did_url
from sage_agent.security.keys import VerifyingKey

ALWAYS_COVERED: Final = ("@method", "@target-uri", "@authority")
COVERED_WITH_BODY: Final = (*ALWAYS_COVERED, "content-type", "content-digest")
LONGEST_FIELD: Final = 4096
"""Bytes of each header a signature brings."""
_FIELDS: Final = ("signature-input", "signature", "content-digest", "x-sage-did")
_MOST_COMPONENTS: Final = 32
_NONCE: Final = re.compile(r"[!-~]{8,128}", re.ASCII)


class RefusedError(Exception):
    """A signature that proves nothing; `reason` is a word for the log, and nobody else's business."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Headers:
    """A request's header lines as the library wants to read them."""

    def __init__(self, lines: Collection[tuple[bytes, bytes]]) -> None:
        self._lines = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in lines]

    def items(self) -> list[tuple[str, str]]:
        """Every line, in order."""
        return self._lines


@dataclass(frozen=True, slots=True)
class Request:
    """A signed request as its signer meant it: the absolute address included."""

    method: str
    url: str
    headers: Headers


@dataclass(frozen=True, slots=True)
class Claim:
    """What a signature says of itself, before anybody has checked it. Times are Unix seconds."""

    label: str
    who: DidUrl
    alg: str
    created: int
    expires: int | None
    nonce: str
    covered: frozenset[str]
    parameters: frozenset[str]


def read_claim(lines: Collection[tuple[bytes, bytes]]) -> Claim:
    """Read the one signature of a request. Raises RefusedError."""
    fields = {name: [value for key, value in lines if key == name.encode()] for name in _FIELDS}
    if any(len(value) > LONGEST_FIELD for values in fields.values() for value in values) or any(len(one) > 1 for one in fields.values()):
        raise RefusedError("size.exceeded")
    if not fields["signature-input"] or not fields["signature"]:
        raise RefusedError("sig.missing")
    inputs, signatures = _dictionary(fields["signature-input"][0]), _dictionary(fields["signature"][0])
    if len(inputs) != 1 or inputs.keys() != signatures.keys():
        raise RefusedError("sig.unknown-label")
    ((label, (components, parameters)),) = inputs.items()
    if not isinstance(components, list) or len(components) > _MOST_COMPONENTS:
        raise RefusedError("sig.malformed")
    said_did = fields["x-sage-did"][0].decode("latin-1") if fields["x-sage-did"] else ""
    return _claim(label, components, dict(parameters), said_did)


def _dictionary(value: bytes) -> dict[str, Any]:
    def twice(key: str, context: str) -> None:
        del key, context
        raise RefusedError("sig.malformed")

    try:
        parsed = http_sf.parse(value, tltype="dictionary", on_duplicate_key=twice)
    except (ValueError, TypeError, RecursionError):
        raise RefusedError("sig.malformed") from None
    if not isinstance(parsed, dict):
        raise RefusedError("sig.malformed")
    return parsed


def _claim(label: str, components: list[Any], parameters: dict[str, Any], said_did: str) -> Claim:
    keyid, nonce, alg = (parameters.get(name, "") for name in ("keyid", "nonce", "alg"))
    created, expires = parameters.get("created"), parameters.get("expires")
    if not all(type(one) is str for one in (keyid, nonce, alg)) or type(created) is not int or type(expires) not in {int, type(None)}:
        raise RefusedError("sig.malformed")
    if not _NONCE.fullmatch(nonce):
        raise RefusedError("sig.nonce")
    try:
        who = parse_did_url(keyid)
    except UnresolvableError as exc:
        raise RefusedError(exc.reason) from None
    if said_did and said_did != who.did:
        raise RefusedError("id.mismatch")
    covered = frozenset(str(value) for value, own in components if not own)
    return Claim(label, who, alg, created, expires, nonce, covered, frozenset(parameters))


def check_claim(claim: Claim, *, now: float, window: float, body: bytes) -> None:
    """Whether a claim is fresh, to within `window` seconds either way, and covers enough. Raises RefusedError."""
    if not now - window <= claim.created <= now + window:
        raise RefusedError("sig.stale")
    if claim.expires is not None and (claim.expires <= now or claim.expires <= claim.created):
        raise RefusedError("sig.stale")
    needed = COVERED_WITH_BODY if body else ALWAYS_COVERED
    if not claim.covered.issuperset(needed):
        raise RefusedError("sig.coverage")


def verify(request: Request, claim: Claim, key: VerifyingKey, body: bytes) -> None:
    """Whether a key made the signature, and whether the body is the one it was made over. Raises RefusedError.

    The algorithm is the key's; one that the signature names has to be the same.
    """
    if claim.alg and claim.alg != key.alg:
        raise RefusedError("sig.alg-mismatch")
    covered = covered_by(request, key, claim.parameters)
    try:
        proven = ContentDigest.verify_components(covered, body)
    except HTTPMessageSignaturesException:
        raise RefusedError("digest.mismatch") from None
    if body and not proven:
        raise RefusedError("digest.missing")


def covered_by(message: object, key: VerifyingKey, parameters: frozenset[str]) -> Mapping[str, str]:
    """What the one signature of a message covers, once it has verified with a key. Raises RefusedError.

    `parameters` are the names of those the signature has; what they say is covered, and not looked at.
    """
    try:
        (result,) = _Verifier(key, parameters).verify(message, max_age=None)
    except (HTTPMessageSignaturesException, ValueError, TypeError, RecursionError):
        raise RefusedError("sig.bad") from None
    return result.covered_components


class _Verifier(HTTPMessageVerifier):
    """The library's, with one key, and times that were checked already; parameters it does not know are covered like the others."""

    def __init__(self, key: VerifyingKey, parameters: frozenset[str]) -> None:
        super().__init__(signature_algorithm=key.algorithm, key_resolver=_OneKey(key))
        self.signature_metadata_parameters = set(parameters)  # type: ignore[misc]

    def validate_created_and_expires(self, sig_input: Any, max_age: Any = None) -> None:
        """Checked by `check_claim`, with this agent's window and clock."""


class _OneKey(HTTPSignatureKeyResolver):
    def __init__(self, key: VerifyingKey) -> None:
        self._key = key

    def resolve_public_key(self, key_id: str) -> Any:
        """The key that was found for this signature."""
        del key_id
        return self._key.key
