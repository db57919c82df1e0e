"""Signed requests: what is let in, and that everything else is refused in the same words."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from sage_agent.callers import ANONYMOUS, Role
from sage_agent.problems import Problem
from sage_agent.security.did_options import DidCaller
from sage_agent.security.guard import RoleGuard
from sage_agent.state.base import StateError
from sage_agent.state.memory import memory_state
from sage_agent.web.wire import Scope
from sage_obs.conventions import ErrorType
from tests.support.signed import BODY, NOW, URL, ask, guard, new_signer, signed

_SIGNER = new_signer()
_OTHER = new_signer()
_NONCE = "a-nonce-of-its-own"


def _refused(scope: Scope, body: bytes = BODY, caplog: pytest.LogCaptureFixture | None = None) -> str:
    """The reason in the log of a request that is refused as every other."""
    if caplog is not None:
        caplog.set_level(logging.INFO, "sage_agent")
    with pytest.raises(Problem) as raised:
        asyncio.run(ask(guard(), scope, body))
    problem = raised.value
    assert (problem.status, problem.error_type) == (401, ErrorType.SIGNATURE_INVALID)
    assert problem.message == "The request's signature was not accepted."
    return str(getattr(caplog.records[-1], "reason", "")) if caplog is not None else ""


def _header(scope: Scope, name: bytes) -> bytes:
    return bytes(next(value for key, value in scope["headers"] if key == name))


def _with(scope: Scope, name: bytes, value: bytes) -> Scope:
    return {**scope, "headers": [(key, value if key == name else old) for key, old in scope["headers"]]}


def _without(scope: Scope, name: bytes) -> Scope:
    return {**scope, "headers": [(key, value) for key, value in scope["headers"] if key != name]}


def _plus(scope: Scope, name: bytes, value: bytes) -> Scope:
    return {**scope, "headers": [*scope["headers"], (name, value)]}


def _input(change: Callable[[bytes], bytes]) -> Scope:
    scope = signed(_SIGNER, nonce=_NONCE)
    return _with(scope, b"signature-input", change(_header(scope, b"signature-input")))


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256-sha256", "es256k"])
def test_a_signed_request_is_from_its_did(algorithm: str) -> None:
    """The caller is the DID, with the tenant and role of the list, whichever kind of key it has."""
    signer = new_signer(algorithm)
    caller = asyncio.run(ask(guard(), signed(signer)))
    assert (caller.id, caller.tenant, caller.role, caller.how) == (signer.did, "acme", Role.OPERATOR, "did")


def test_a_request_without_a_body_needs_no_digest() -> None:
    """What is not there is not covered."""
    scope = signed(_SIGNER, body=b"", method="GET")
    assert asyncio.run(ask(guard(), scope, b"")).id == _SIGNER.did


ATTACKS: dict[str, tuple[Callable[[], Scope], bytes, str]] = {
    "another body": (lambda: signed(_SIGNER), BODY.replace(b"hello", b"hullo"), "digest.mismatch"),
    "no body": (lambda: signed(_SIGNER), b"", "digest.mismatch"),
    "a body where there was none": (lambda: signed(_SIGNER, body=b""), BODY, "sig.coverage"),
    "another method": (lambda: {**signed(_SIGNER), "method": "PUT"}, BODY, "sig.bad"),
    "another path": (lambda: {**signed(_SIGNER), "raw_path": b"/v1/messages/stream"}, BODY, "sig.bad"),
    "another query": (lambda: {**signed(_SIGNER), "query_string": b"lang=de"}, BODY, "sig.bad"),
    "another agent": (lambda: signed(_SIGNER, url="https://other.example/v1/messages"), BODY, "sig.authority"),
    "another agent, renamed": (lambda: _with(signed(_SIGNER, url="https://b.example/"), b"host", b"agent.example"), BODY, "sig.bad"),
    "two hosts": (lambda: _plus(signed(_SIGNER), b"host", b"agent.example"), BODY, "sig.authority"),
    "another content type": (lambda: _with(signed(_SIGNER), b"content-type", b"text/plain"), BODY, "sig.bad"),
    "a second content type": (lambda: _plus(signed(_SIGNER), b"content-type", b"text/plain"), BODY, "sig.bad"),
    "another date": (lambda: _with(signed(_SIGNER), b"date", b"Fri, 15 Jan 2027 08:00:01 GMT"), BODY, "sig.bad"),
    "a digest of another body": (
        lambda: _with(signed(_SIGNER), b"content-digest", _header(signed(_SIGNER, body=b"{}"), b"content-digest")),
        b"{}",
        "sig.bad",
    ),
    "stale": (lambda: signed(_SIGNER, now=NOW - 301), BODY, "sig.stale"),
    "of the future": (lambda: signed(_SIGNER, now=NOW + 301), BODY, "sig.stale"),
    "expired": (lambda: _input(lambda value: value + b";expires=%d" % (NOW - 1)), BODY, "sig.stale"),
    "made younger": (lambda: _input(lambda value: value.replace(b"created=1800000000", b"created=1800000001")), BODY, "sig.bad"),
    "another nonce": (lambda: _input(lambda value: value.replace(_NONCE.encode(), b"another-nonce-here")), BODY, "sig.bad"),
    "no nonce": (lambda: _input(lambda value: value.replace(b';nonce="%s"' % _NONCE.encode(), b"")), BODY, "sig.nonce"),
    "an empty nonce": (lambda: _input(lambda value: value.replace(_NONCE.encode(), b"")), BODY, "sig.nonce"),
    "no time": (lambda: _input(lambda value: value.replace(b";created=1800000000", b"")), BODY, "sig.malformed"),
    "a time of two": (lambda: _input(lambda value: value + b";created=1800000000"), BODY, "sig.malformed"),
    "nothing covered": (lambda: _input(lambda value: b"sig1=()" + value.partition(b")")[2]), BODY, "sig.coverage"),
    "the address uncovered": (lambda: _input(lambda value: value.replace(b' "@target-uri"', b"")), BODY, "sig.coverage"),
    "the digest uncovered": (lambda: _input(lambda value: value.replace(b' "content-digest"', b"")), BODY, "sig.coverage"),
    "a component twice": (lambda: _input(lambda value: value.replace(b'"@method"', b'"@method" "@method"')), BODY, "sig.bad"),
    "a component of its request": (lambda: _input(lambda value: value.replace(b'"@method"', b'"@method";req')), BODY, "sig.coverage"),
    "an unknown algorithm": (lambda: _input(lambda value: value.replace(b'alg="ed25519"', b'alg="none"')), BODY, "sig.alg-mismatch"),
    "another algorithm": (lambda: _input(lambda value: value.replace(b'alg="ed25519"', b'alg="hmac-sha256"')), BODY, "sig.alg-mismatch"),
    "another's DID": (
        lambda: _without(_input(lambda value: value.replace(_SIGNER.keyid.encode(), _OTHER.keyid.encode())), b"x-sage-did"),
        BODY,
        "sig.bad",
    ),
    "another's DID in the header": (lambda: _with(signed(_SIGNER), b"x-sage-did", _OTHER.did.encode()), BODY, "id.mismatch"),
    "another's key of this DID": (
        lambda: _input(lambda value: value.replace(b"#" + _SIGNER.keyid.partition("#")[2].encode(), b"#key-2")),
        BODY,
        "key.not-in-record",
    ),
    "no DID": (lambda: _input(lambda value: value.replace(_SIGNER.keyid.encode(), b"key-1")), BODY, "id.malformed"),
    "a method nobody knows": (
        lambda: _without(_input(lambda value: value.replace(_SIGNER.keyid.encode(), b"did:sage:ethereum:0x11#k")), b"x-sage-did"),
        BODY,
        "id.unknown-kind",
    ),
    "another signature": (lambda: _with(signed(_SIGNER), b"signature", _header(signed(_OTHER), b"signature")), BODY, "sig.bad"),
    "half a signature": (lambda: _with(signed(_SIGNER), b"signature", b"sig1=:AAAA:"), BODY, "sig.bad"),
    "no signature": (lambda: _without(signed(_SIGNER), b"signature"), BODY, "sig.missing"),
    "no input": (lambda: _without(signed(_SIGNER), b"signature-input"), BODY, "sig.missing"),
    "neither": (lambda: _without(_without(signed(_SIGNER), b"signature-input"), b"signature"), BODY, "sig.missing"),
    "a label twice": (lambda: _input(lambda value: value + b", " + value), BODY, "sig.malformed"),
    "two labels": (lambda: _input(lambda value: value + b", " + value.replace(b"sig1", b"sig2")), BODY, "sig.unknown-label"),
    "two header lines": (lambda: _plus(signed(_SIGNER), b"signature-input", b"sig2=()"), BODY, "size.exceeded"),
    "labels that differ": (lambda: _input(lambda value: value.replace(b"sig1", b"sig2")), BODY, "sig.unknown-label"),
    "an endless header": (lambda: _input(lambda value: value + b';tag="' + b"x" * 5000 + b'"'), BODY, "size.exceeded"),
    "a line break in a name": (lambda: _input(lambda value: value.replace(b'"date"', b'"da\\nte"')), BODY, "sig.malformed"),
    "a line break in a value": (lambda: _with(signed(_SIGNER), b"date", b'x\n"@method": GET'), BODY, "sig.bad"),
    "not structured at all": (lambda: _with(signed(_SIGNER), b"signature-input", b"\xff\x00=("), BODY, "sig.malformed"),
    "a list in a list": (lambda: _with(signed(_SIGNER), b"signature-input", b"sig1=" + b"(" * 500), BODY, "sig.malformed"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_is_refused_alike(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """One status, one type, one sentence, whatever was wrong; the log has the reason."""
    make, body, reason = ATTACKS[name]
    assert _refused(make(), body, caplog) == reason


def test_a_replay_is_refused_also_by_another_replica(caplog: pytest.LogCaptureFixture) -> None:
    """Two guards share nonces: what the one has taken, neither takes again."""
    caplog.set_level(logging.INFO, "sage_agent")
    nonces = memory_state(lambda: NOW).nonces
    here, there, scope = guard(nonces=nonces), guard(nonces=nonces), signed(_SIGNER)

    async def replay() -> None:
        await ask(here, scope)
        for one in (here, there):
            with pytest.raises(Problem):
                await ask(one, scope)

    asyncio.run(replay())
    assert [record.reason for record in caplog.records] == ["sig.replay", "sig.replay"]  # type: ignore[attr-defined]


def test_a_nonce_is_used_up_by_a_good_signature_only() -> None:
    """A stranger who has seen a nonce cannot use it up with a body of his own; and two callers may choose the same."""
    one = guard()

    async def both() -> None:
        with pytest.raises(Problem):
            await ask(one, signed(_SIGNER, nonce=_NONCE), b"{}")
        await ask(one, signed(_SIGNER, nonce=_NONCE))
        await ask(one, signed(_OTHER, nonce=_NONCE))

    asyncio.run(both())


def test_a_nonce_outlives_its_signature() -> None:
    """A signature from ahead of our clock can be used until its own time is over; its nonce is remembered as long."""
    claims: list[float] = []

    class Nonces:
        async def claim(self, scope: str, nonce: str, *, seconds: float) -> bool:
            del scope, nonce
            claims.append(seconds)
            return True

    asyncio.run(ask(guard(nonces=Nonces()), signed(_SIGNER, now=NOW + 200)))
    asyncio.run(ask(guard(nonces=Nonces()), signed(_SIGNER, now=NOW - 200)))
    assert claims == [505.0, 105.0]


def test_without_its_store_nothing_signed_is_let_in() -> None:
    """A replay could not be told: 503, and try again."""

    class Lost:
        async def claim(self, scope: str, nonce: str, *, seconds: float) -> bool:
            raise StateError(f"gone: {scope} {nonce} {seconds}")

    with pytest.raises(Problem) as raised:
        asyncio.run(ask(guard(nonces=Lost()), signed(_SIGNER)))
    assert (raised.value.status, raised.value.retry_after) == (503, 1)


def test_who_is_not_on_the_list_is_refused_before_anything_is_looked_up() -> None:
    """A stranger cannot make this agent ask a host; one who is on the list has what the list says."""

    class Never:
        async def resolve(self, did: str) -> object:
            raise AssertionError(did)

    listed = (DidCaller("did:web:agents.example:*", "", Role.OPERATOR),)
    with pytest.raises(Problem):
        asyncio.run(ask(guard(callers=listed, resolver=Never()), signed(_SIGNER)))
    both = (DidCaller(_SIGNER.did, "globex", Role.ADMIN), DidCaller("*", "", Role.OPERATOR))
    caller = asyncio.run(ask(guard(callers=both), signed(_SIGNER)))
    assert (caller.tenant, caller.role) == ("globex", Role.ADMIN)


@pytest.mark.parametrize(
    ("listed", "did", "meant"),
    [
        ("*", "did:web:evil", True),
        ("did:web:*", "did:web:evil", True),
        ("did:web:a.example*", "did:web:a.example", True),
        ("did:web:a.example*", "did:web:a.example:clerk", True),
        ("did:web:a.example*", "did:web:a.example.evil", False),
        ("did:web:a.example*", "did:web:a.example-evil.com:clerk", False),
        ("did:web:a.example*", "did:web:a.example%3A8443", False),
        ("did:web:a.example:*", "did:web:a.example", False),
        ("did:web:a.example:team-*", "did:web:a.example:team-one", True),
        ("did:sage:web:a.example*", "did:sage:web:a.example.evil:clerk", False),
        ("did:key:z6Mk*", "did:key:z6MkhaXg", True),
    ],
)
def test_a_star_after_a_domain_is_below_it(listed: str, did: str, *, meant: bool) -> None:
    """Never another domain, or another port, that merely begins alike."""
    assert DidCaller(listed, "", Role.OPERATOR).matches(did) == meant


def test_a_caller_that_may_only_look_sends_no_messages() -> None:
    """It is known only once its signature is verified, and may not: 403."""
    with pytest.raises(Problem) as raised:
        asyncio.run(ask(RoleGuard(guard(callers=(DidCaller("*", "", Role.VIEWER),))), signed(_SIGNER)))
    assert raised.value.status == 403


def test_where_signatures_are_optional_others_come_in_as_they_are_and_bad_ones_do_not() -> None:
    """An unsigned request is left to whoever else asks; a signature that is there must be good."""
    unsigned = _without(_without(signed(_SIGNER), b"signature-input"), b"signature")
    assert asyncio.run(ask(guard(mode="optional"), unsigned)) is ANONYMOUS
    with pytest.raises(Problem):
        asyncio.run(ask(guard(mode="optional"), signed(_SIGNER), b"{}"))


def test_without_an_address_of_its_own_only_the_connections_counts() -> None:
    """A request signed for a name, or for another address, was perhaps meant for somebody else."""
    here = signed(_SIGNER, url="http://127.0.0.1:8080/v1/messages")
    assert asyncio.run(ask(guard(own_urls=()), here)).id == _SIGNER.did
    for url in (URL, "http://127.0.0.1:8081/v1/messages", "http://127.0.0.2:8080/v1/messages"):
        with pytest.raises(Problem):
            asyncio.run(ask(guard(own_urls=()), signed(_SIGNER, url=url)))


def test_a_private_key_is_in_no_representation() -> None:
    """A signer can be logged."""
    assert "private" not in repr(_SIGNER)
