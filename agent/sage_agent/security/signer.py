"""Signing what one sends: `httpx.post(url, json=…, auth=SignedBy(read_signer(Path("key.pem"))))`."""

from __future__ import annotations

import datetime as dt
import secrets
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from http_message_signatures import HTTPMessageSigner, HTTPSignatureKeyResolver
from http_message_signatures.digests import ContentDigest

from sage_agent.security.base58 import encode
from sage_agent.security.keys import KeyUnusableError, VerifyingKey, of_public
from sage_agent.security.signatures import ALWAYS_COVERED, COVERED_WITH_BODY
from sage_obs.errors import ConfigError

ALGORITHMS: Final = ("ed25519", "ecdsa-p256-sha256", "es256k")
_MULTICODEC: Final = {"ed25519": b"\xed\x01", "ecdsa-p256-sha256": b"\x80\x24", "ecdsa-p384-sha384": b"\x81\x24", "es256k": b"\xe7\x01"}
_LABEL: Final = "sig1"
_MAKE_ONE: Final = "Make one with: sage-agent did new --out key.pem"


@dataclass(frozen=True, slots=True)
class Signer:
    """A DID with one of its private keys; `keyid` is the DID URL of the key."""

    keyid: str
    public: VerifyingKey
    private: Any = field(repr=False)

    @property
    def did(self) -> str:
        """Who signs."""
        return self.keyid.partition("#")[0]


def new_private_key(algorithm: str) -> Any:
    """A fresh private key for one of ALGORITHMS."""
    if algorithm == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1() if algorithm == "ecdsa-p256-sha256" else ec.SECP256K1())


def to_pem(private: Any) -> bytes:
    """A private key as an unencrypted PKCS #8 PEM."""
    return bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


def make_signer(pem: bytes, *, keyid: str = "", where: str = "the key") -> Signer:
    """A signer of a private key; without a `keyid` its DID is the key's own did:key. Raises ConfigError, without the key."""
    try:
        private: Any = serialization.load_pem_private_key(pem, password=None)
        public = of_public(private.public_key())
    except (ValueError, TypeError, KeyUnusableError):
        raise ConfigError(f"{where} is no unencrypted PEM private key that can sign.", hint=_MAKE_ONE) from None
    return Signer(keyid or _own_keyid(public), public, private)


def read_signer(path: Path, *, keyid: str = "") -> Signer:
    """A signer of the private key in a file. Raises ConfigError."""
    try:
        pem = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"The key {path} cannot be read: {exc.strerror}.", hint=_MAKE_ONE) from None
    return make_signer(pem, keyid=keyid, where=f"The key {path}")


def did_key(public: VerifyingKey) -> str:
    """The did:key of a public key. Raises ConfigError for RSA, which is too long to be one here."""
    if public.alg not in _MULTICODEC:
        raise ConfigError(f"A {public.alg} key is no did:key here.", hint="Say which DID URL names it, with --keyid.")
    if isinstance(public.key, ed25519.Ed25519PublicKey):
        data = public.key.public_bytes_raw()
    else:
        data = public.key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    return f"did:key:z{encode(_MULTICODEC[public.alg] + data)}"


def _own_keyid(public: VerifyingKey) -> str:
    did = did_key(public)
    return f"{did}#{did.removeprefix('did:key:')}"


def sign_request(request: httpx.Request, signer: Signer, *, now: float | None = None, nonce: str | None = None) -> None:
    """Sign a request whose body has been read; `now` (Unix seconds) and `nonce` are for tests."""
    created = time.time() if now is None else now
    body = request.content
    if body:
        request.headers.setdefault("content-type", "application/json")
        request.headers["content-digest"] = ContentDigest.create(body)
    request.headers["date"] = formatdate(created, usegmt=True)
    request.headers["x-sage-did"] = signer.did
    covered = (*(COVERED_WITH_BODY if body else ALWAYS_COVERED), "x-sage-did", "date")
    HTTPMessageSigner(signature_algorithm=signer.public.algorithm, key_resolver=_OneKey(signer)).sign(
        request,
        key_id=signer.keyid,
        created=dt.datetime.fromtimestamp(created, tz=dt.UTC),
        nonce=nonce or secrets.token_urlsafe(18),
        label=_LABEL,
        covered_component_ids=covered,
        use_existing_digest=bool(body),
    )


class _OneKey(HTTPSignatureKeyResolver):
    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def resolve_private_key(self, key_id: str) -> Any:
        """The signer's key."""
        del key_id
        return self._signer.private


class SignedBy(httpx.Auth):
    """Signs every request of an httpx client, each with a nonce of its own."""

    requires_request_body = True

    def __init__(self, signer: Signer, *, clock: Callable[[], float] = time.time) -> None:
        self._signer = signer
        self._clock = clock

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign, and send."""
        sign_request(request, self._signer, now=self._clock())
        yield request
