"""ECDSA over secp256k1 as SAGE signs with it: Keccak-256, r and s, and a recovery number behind them (SAGE specification, chapter 1).

`es256k` is not in RFC 9421's registry of algorithms; in JOSE (RFC 8812) the same name means SHA-256. This is SAGE's.
"""

from __future__ import annotations

from typing import Any, Final

from Crypto.Hash import keccak
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature
from http_message_signatures.algorithms import HTTPSignatureAlgorithm

_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_SIZE: Final = 32
_PREHASHED: Final = ec.ECDSA(Prehashed(hashes.SHA256()))
"""The digest is made here; SHA-256 says only how long it is."""


class ES256K(HTTPSignatureAlgorithm):
    """Verifies 64 bytes (r, s) and 65 (r, s, v). Signs 64, as what v adds nobody needs who has the key."""

    algorithm_id = "es256k"

    def __init__(self, public_key: Any = None, private_key: Any = None) -> None:
        self._public, self._private = public_key, private_key

    def sign(self, message: bytes) -> bytes:
        """Sign, s in the lower half."""
        r, s = decode_dss_signature(self._private.sign(_digest(message), _PREHASHED))
        return r.to_bytes(_SIZE) + min(s, _ORDER - s).to_bytes(_SIZE)

    def verify(self, signature: bytes, message: bytes) -> None:
        """Raise InvalidSignature unless it is one of this message."""
        if len(signature) == 2 * _SIZE + 1 and signature[-1] in {0, 1}:
            signature = signature[:-1]
        if len(signature) != 2 * _SIZE:
            raise InvalidSignature
        r, s = int.from_bytes(signature[:_SIZE]), int.from_bytes(signature[_SIZE:])
        self._public.verify(encode_dss_signature(r, s), _digest(message), _PREHASHED)


def _digest(message: bytes) -> bytes:
    return keccak.new(digest_bits=256, data=message).digest()
