"""DIDs and their documents: what is read, what is refused, what is remembered."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sage_agent.security import sage_web
from sage_agent.security.did import DidUrl, UnresolvableError, keys_of_did_key, keys_of_document, parse_did_url
from sage_agent.security.did_web import Location, locate
from sage_agent.security.fetching import Fetched, Fetcher, is_public
from sage_agent.security.keys import KeyUnusableError, of_jwk, of_public
from sage_agent.security.resolver import Resolver
from sage_agent.security.signer import did_key

_DID = "did:sage:web:agents.example.com:clerk"
_NOW = 1_800_000_000.0


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _entry(name: str = "signing-1", *, signer: str = "", agent: str = "clerk", **changes: object) -> dict[str, Any]:
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    proof = private.sign(sage_web.possession_challenge("web:agents.example.com", agent, name, "ed25519", public))
    proven = {"signer": signer or f"{_DID}#{name}", "value": _encoded(proof)}
    return {"name": name, "alg": "ed25519", "key": _encoded(public), "proof": proven, "state": "accepted", **changes}


def _envelope(*entries: dict[str, Any], **changes: object) -> dict[str, Any]:
    record = {"id": _DID, "controller": "operator", "keys": list(entries), "services": [], "state": "active", "version": "1"}
    return {"record": record | changes, "issued": int(_NOW) - 1, "expires": int(_NOW) + 4}


class Registry:
    """A fetcher that answers with one document, and counts."""

    def __init__(self, document: object, cache: str = "no-store") -> None:
        self.document = document
        self.cache = cache
        self.asked: list[tuple[str, int, str]] = []

    async def get(self, host: str, port: int, path: str) -> Fetched:
        """The document."""
        self.asked.append((host, port, path))
        await asyncio.sleep(0)
        return Fetched(self.document, self.cache)


def _resolver(registry: Registry, **changes: Any) -> Resolver:
    settings: Mapping[str, Any] = {"origins": {"agents.example.com": 443}, "ttl": 60.0, "clock": lambda: _NOW, **changes}
    return Resolver(cast("Fetcher", registry), **settings)


def _reason(registry: Registry, did: str = _DID, **changes: Any) -> str:
    with pytest.raises(UnresolvableError) as raised:
        asyncio.run(_resolver(registry, **changes).resolve(did))
    return raised.value.reason


def test_a_sage_record_is_read_anew_for_every_request() -> None:
    """From the path the specification names; nothing of it is remembered."""
    registry = Registry(_envelope(_entry()))
    resolver = _resolver(registry)
    for _ in range(2):
        assert list(asyncio.run(resolver.resolve(_DID)).keys) == ["signing-1"]
    assert registry.asked == [("agents.example.com", 443, "/.well-known/sage/agents/clerk")] * 2


@pytest.mark.parametrize(
    ("document", "cache", "reason"),
    [
        (_envelope(_entry(), state="created"), "no-store", "record.inactive"),
        (_envelope(_entry(), state="deactivated"), "no-store", "record.inactive"),
        (_envelope(_entry(), id="did:sage:web:agents.example.com:other"), "no-store", "record.of-another"),
        (_envelope(_entry()) | {"expires": int(_NOW)}, "no-store", "record.stale"),
        (_envelope(_entry()) | {"issued": int(_NOW) + 1}, "no-store", "record.stale"),
        (_envelope(_entry()) | {"issued": int(_NOW) - 9}, "no-store", "record.stale"),
        (_envelope(_entry()) | {"more": 1}, "no-store", "record.malformed"),
        (_envelope(_entry("a"), _entry("a")), "no-store", "record.malformed"),
        (_envelope(_entry()), "max-age=60", "record.cacheable"),
        ([], "no-store", "record.malformed"),
    ],
)
def test_a_sage_record_that_is_not_as_it_must_be_is_none(document: object, cache: str, reason: str) -> None:
    """Inactive, another's, stale, living too long, with names twice, or kept by somebody in between."""
    assert _reason(Registry(document, cache)) == reason


def test_a_sage_key_counts_while_it_is_accepted_proven_and_not_expired() -> None:
    """A revoked key, one without the proof of its private half, and one whose proof is for another agent are not there."""
    forged = _entry("forged", proof=_entry()["proof"] | {"signer": f"{_DID}#forged"})
    entries = (
        _entry("good"),
        _entry("later", expires=int(_NOW) + 1),
        _entry("revoked", state="revoked"),
        _entry("expired", expires=int(_NOW)),
        _entry("elsewhere", agent="other"),
        _entry("signed-by-another", signer=f"{_DID}#good"),
        _entry("unproven", proof=None),
        _entry("unknown", alg="rot13"),
        forged,
    )
    assert list(asyncio.run(_resolver(Registry(_envelope(*entries))).resolve(_DID)).keys) == ["good", "later"]


@pytest.mark.parametrize(
    ("did", "reason"),
    [
        ("did:sage:web:other.example.com:clerk", "record.origin-not-allowed"),
        ("did:sage:web:127.0.0.1:clerk", "id.malformed"),
        ("did:sage:web:Agents.example.com:clerk", "id.malformed"),
        ("did:sage:web:agents.example.com:..", "id.malformed"),
        ("did:sage:web:agents.example.com", "id.malformed"),
        ("did:sage:ethereum:0x1111111111111111111111111111111111111111", "id.unknown-kind"),
        ("did:ion:abc", "id.unknown-kind"),
        ("did:key:zzz", "key.unusable"),
    ],
)
def test_what_is_not_to_be_asked_is_not_asked(did: str, reason: str) -> None:
    """Origins nobody has named, addresses instead of names, chains, and methods that are not known."""
    registry = Registry(_envelope(_entry()))
    assert (_reason(registry, did), registry.asked) == (reason, [])


@pytest.mark.parametrize(
    ("did", "where"),
    [
        ("did:web:agents.example", Location("agents.example", 443, "/.well-known/did.json")),
        ("did:web:agents.example%3A8443", Location("agents.example", 8443, "/.well-known/did.json")),
        ("did:web:agents.example:team:clerk", Location("agents.example", 443, "/team/clerk/did.json")),
    ],
)
def test_where_a_did_webs_document_is(did: str, where: Location) -> None:
    """As the method's specification says."""
    assert locate(did) == where


@pytest.mark.parametrize("rest", ["", "a b", "a%2Fb", "a:..", "a:%2e%2e", "a%3A0", "a%3A99999", "u%40h", "a::b"])
def test_a_did_web_that_could_lead_elsewhere_is_refused(rest: str) -> None:
    """No path, user, port or climbing that the method does not allow."""
    with pytest.raises(UnresolvableError):
        locate(f"did:web:{rest}")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("198.51.99.1", True),
        ("2606:4700::1111", True),
        ("64:ff9b::808:808", True),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::7f00:1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b:1::808:808", False),
        ("2002:7f00:1::", False),
    ],
)
def test_an_address_inside_a_network_is_known_in_every_disguise(address: str, *, public: bool) -> None:
    """Loopback, link-local, shared, multicast, site-local, and an IPv4 address of these that a gateway would unwrap."""
    assert is_public(address) == public


def test_many_who_ask_at_once_are_one_fetch_and_what_was_found_is_remembered_for_its_time() -> None:
    """A failure too, but shortly."""
    now = [_NOW]
    private = Ed25519PrivateKey.generate()
    multikey = did_key(of_public(private.public_key())).removeprefix("did:key:")
    method = {"id": "did:web:a.example#k", "type": "Multikey", "controller": "did:web:a.example", "publicKeyMultibase": multikey}
    registry = Registry({"id": "did:web:a.example", "authentication": [method]}, "max-age=10")
    resolver = _resolver(registry, clock=lambda: now[0])

    async def ask(count: int) -> None:
        await asyncio.gather(*(resolver.resolve("did:web:a.example") for _ in range(count)), return_exceptions=True)

    async def times() -> list[int]:
        counts = []
        for wait in (0.0, 9.0, 2.0):
            now[0] += wait
            await ask(20)
            counts.append(len(registry.asked))
        registry.document = {}
        for wait in (11.0, 4.0, 2.0):
            now[0] += wait
            await ask(3)
            counts.append(len(registry.asked))
        return counts

    assert asyncio.run(times()) == [1, 1, 2, 3, 3, 4]


def test_a_document_names_keys_for_authentication_only() -> None:
    """Keys of others, keys for agreement, and keys that nobody can verify with are left out."""
    good = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    jwk = {"kty": "EC", "crv": "P-256", "x": _encoded(good.x.to_bytes(32)), "y": _encoded(good.y.to_bytes(32))}
    agreement = {"kty": "OKP", "crv": "X25519", "x": _encoded(x25519.X25519PrivateKey.generate().public_key().public_bytes_raw())}
    did = "did:web:a.example"
    methods = [
        {"id": "#good", "controller": did, "publicKeyJwk": jwk},
        {"id": f"{did}#agreement", "controller": did, "publicKeyJwk": agreement},
        {"id": f"{did}#theirs", "controller": "did:web:b.example", "publicKeyJwk": jwk},
        {"id": "did:web:b.example#other", "controller": did, "publicKeyJwk": jwk},
        {"id": f"{did}#private", "controller": did, "publicKeyJwk": jwk | {"d": "AA"}},
        {"id": f"{did}#unused", "controller": did, "publicKeyJwk": jwk},
    ]
    used = [f"{did}#good", f"{did}#agreement", f"{did}#theirs", "did:web:b.example#other", f"{did}#private", 7]
    document = {"id": did, "verificationMethod": methods, "authentication": used}
    assert list(keys_of_document(document, did)) == ["good"]
    wrongs: tuple[object, ...] = ({**document, "id": "did:web:b.example"}, {**document, "deactivated": True}, [], None)
    for wrong in wrongs:
        with pytest.raises(UnresolvableError):
            keys_of_document(wrong, did)


def test_published_did_keys_are_read() -> None:
    """The examples of the did:key specification: Ed25519, secp256k1, P-256."""
    for did, alg in (
        ("did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK", "ed25519"),
        ("did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme", "es256k"),
        ("did:key:zDnaerDaTF5BXEavCrfRZEk316dpbLsfPDZ3WJ5hRTPFU2169", "ecdsa-p256-sha256"),
    ):
        ((name, key),) = keys_of_did_key(did).items()
        assert (f"did:key:{name}", key.alg) == (did, alg)
        assert did_key(key) == did


@pytest.mark.parametrize("bits", [1024, 2048])
def test_an_rsa_key_is_long_enough_or_none(bits: int) -> None:
    """2048 bits at least."""
    numbers = rsa.generate_private_key(65537, bits).public_key().public_numbers()
    jwk = {"kty": "RSA", "n": _encoded(numbers.n.to_bytes(bits // 8)), "e": "AQAB"}
    if bits >= 2048:
        assert of_jwk(jwk).alg == "rsa-pss-sha512"
        return
    with pytest.raises(KeyUnusableError):
        of_jwk(jwk)


@pytest.mark.parametrize(
    "text", ["", "did", "did:web", "did:web:", "did:web:a#", "did:web:a#b#c", "DID:web:a", "did:web:a b", "did:w:" + "a" * 600]
)
def test_what_is_no_did_url_is_refused(text: str) -> None:
    """Before anything is made of it."""
    with pytest.raises(UnresolvableError):
        parse_did_url(text)
    assert parse_did_url("did:web:a#b") == DidUrl("did:web:a", "b")
