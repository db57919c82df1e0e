"""Public keys in the encodings DIDs use, and the algorithms they verify with: the key decides, never the caller."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from http_message_signatures.algorithms import ECDSA_P256_SHA256, ECDSA_P384_SHA384, ED25519, RSA_PSS_SHA512, HTTPSignatureAlgorithm

from sage_agent.security.base58 import decode
from sage_agent.security.es256k import ES256K

PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey
_LEAST_RSA_BITS: Final = 2048
_MOST_RSA_BITS: Final = 8192
_MOST_EXPONENT_BYTES: Final = 4
_CURVES: Final[Mapping[str, tuple[type[ec.EllipticCurve], type[HTTPSignatureAlgorithm]]]] = {
    "P-256": (ec.SECP256R1, ECDSA_P256_SHA256),
    "P-384": (ec.SECP384R1, ECDSA_P384_SHA384),
    "secp256k1": (ec.SECP256K1, ES256K),
}
_MULTICODEC: Final[Mapping[bytes, str]] = {b"\xed\x01": "Ed25519", b"\x80\x24": "P-256", b"\x81\x24": "P-384", b"\xe7\x01": "secp256k1"}
"""The multicodec table's prefixes, as unsigned varints."""
_SAGE_NAMES: Final[Mapping[str, str]] = {"ed25519": "Ed25519", "ecdsa-p256-sha256": "P-256", "es256k": "secp256k1"}
"""What SAGE's registries call a key's algorithm."""


class KeyUnusableError(ValueError):
    """What was read is no public key this agent can verify with."""


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key and the one algorithm it is used with."""

    key: PublicKey
    algorithm: type[HTTPSignatureAlgorithm]

    @property
    def alg(self) -> str:
        """The algorithm's name in RFC 9421's registry (SAGE's for secp256k1, which that one does not have)."""
        return self.algorithm.algorithm_id


def of_public(key: object) -> VerifyingKey:
    """A key with its algorithm. Raises KeyUnusableError for a kind of key that is not used here."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return VerifyingKey(key, ED25519)
    if isinstance(key, rsa.RSAPublicKey) and _LEAST_RSA_BITS <= key.key_size <= _MOST_RSA_BITS:
        return VerifyingKey(key, RSA_PSS_SHA512)
    if isinstance(key, ec.EllipticCurvePublicKey):
        for curve, algorithm in _CURVES.values():
            if isinstance(key.curve, curve):
                return VerifyingKey(key, algorithm)
    raise KeyUnusableError("a kind of key that is not used here")


def of_raw(kind: str, data: bytes) -> VerifyingKey:
    """A key from its bytes: 32 of Ed25519, a point (SEC 1, compressed or not) of a curve. Raises KeyUnusableError."""
    try:
        if kind == "Ed25519":
            return VerifyingKey(ed25519.Ed25519PublicKey.from_public_bytes(data), ED25519)
        curve, algorithm = _CURVES[kind]
        return VerifyingKey(ec.EllipticCurvePublicKey.from_encoded_point(curve(), data), algorithm)
    except (KeyError, ValueError, UnsupportedAlgorithm):
        raise KeyUnusableError(f"not a key of {kind[:20]}") from None


def of_sage(algorithm: str, data: bytes) -> VerifyingKey:
    """A key of a SAGE record. Raises KeyUnusableError."""
    if algorithm not in _SAGE_NAMES:
        raise KeyUnusableError("an algorithm that is not used here")
    return of_raw(_SAGE_NAMES[algorithm], data)


def of_multibase(text: str) -> VerifyingKey:
    """A key as did:key and `publicKeyMultibase` write it: `z`, then base58btc of a multicodec. Raises KeyUnusableError."""
    if not text.startswith("z"):
        raise KeyUnusableError("only base58btc (z) is read")
    data = decode(text[1:])
    if data is None or data[:2] not in _MULTICODEC:
        raise KeyUnusableError("not a multicodec of a key that is used here")
    return of_raw(_MULTICODEC[data[:2]], data[2:])


def of_jwk(jwk: object) -> VerifyingKey:
    """A key as a JSON Web Key (RFC 7517, 8037). Raises KeyUnusableError, too where it is a private one."""
    if not isinstance(jwk, dict) or "d" in jwk:
        raise KeyUnusableError("not a public JSON Web Key")
    match jwk.get("kty"), jwk.get("crv"):
        case "OKP", "Ed25519":
            return of_raw("Ed25519", _bytes(jwk, "x"))
        case "EC", str(curve) if curve in _CURVES:
            size = (_CURVES[curve][0]().key_size + 7) // 8
            x, y = _bytes(jwk, "x"), _bytes(jwk, "y")
            if len(x) != size or len(y) != size:
                raise KeyUnusableError("coordinates of the wrong length")
            return of_raw(curve, b"\x04" + x + y)
        case "RSA", _:
            return _rsa(_bytes(jwk, "n"), _bytes(jwk, "e"))
    raise KeyUnusableError("a kind of key that is not used here")


def _rsa(n: bytes, e: bytes) -> VerifyingKey:
    if len(n) * 8 > _MOST_RSA_BITS or len(e) > _MOST_EXPONENT_BYTES:
        raise KeyUnusableError("an RSA key of an unusual size")
    try:
        return of_public(rsa.RSAPublicNumbers(int.from_bytes(e), int.from_bytes(n)).public_key())
    except ValueError:
        raise KeyUnusableError("not an RSA key") from None


def _bytes(jwk: Mapping[str, Any], name: str) -> bytes:
    value = jwk.get(name)
    if not isinstance(value, str) or len(value) > 2 * _MOST_RSA_BITS // 8:
        raise KeyUnusableError(f"no {name}")
    return from_base64url(value)


def from_base64url(text: str) -> bytes:
    """Bytes of unpadded base64url. Raises KeyUnusableError."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise KeyUnusableError("not base64url") from None
