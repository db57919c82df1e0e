"""Who may ask, and how often."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from sage_agent.callers import Caller, Role
from sage_agent.problems import Problem
from sage_agent.security.addresses import client_address
from sage_agent.security.api_keys import ApiKeys
from sage_agent.security.certificates import Certificates
from sage_agent.security.config import JwtConfig, _allowed
from sage_agent.security.fingerprints import fingerprint
from sage_agent.security.guard import CallerGuard, Identification, RateGuard
from sage_agent.security.options import KeyEntry, parse_api_keys
from sage_agent.security.tokens import Tokens
from sage_agent.state.base import Rate, StateError, Taken
from sage_agent.state.memory import MemoryLimits
from sage_agent.web.guard import OpenGuard, said_also
from sage_obs.errors import ConfigError

_KEY = "sage_0123456789abcdef"
_CONFIG = JwtConfig("https://issuer", "agent", "file", ("RS256", "ES256", "EdDSA"), 30.0, "tenant", "role")
_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_NOW = dt.datetime.now(dt.UTC)


def _scope(*headers: tuple[bytes, bytes], client: str = "192.0.2.1") -> dict[str, Any]:
    return {"headers": list(headers), "client": (client, 5)}


def _jwk(key: Any, kid: str) -> dict[str, Any]:
    public = key.public_key()
    algorithm: Any = jwt.algorithms.OKPAlgorithm
    if isinstance(public, rsa.RSAPublicKey):
        algorithm = jwt.algorithms.RSAAlgorithm
    elif isinstance(public, ec.EllipticCurvePublicKey):
        algorithm = jwt.algorithms.ECAlgorithm
    return {**json.loads(algorithm.to_jwk(public)), "kid": kid, "use": "sig"}


def _claims(**changes: Any) -> dict[str, Any]:
    claims = {"iss": "https://issuer", "aud": "agent", "sub": "ann", "exp": _NOW + dt.timedelta(hours=10), "tenant": "acme"}
    return {name: value for name, value in {**claims, **changes}.items() if value is not None}


def _token(claims: dict[str, Any] | None = None, *, key: Any = _RSA, algorithm: str = "RS256", kid: str | None = "one") -> str:
    return jwt.encode(claims or _claims(), key, algorithm=algorithm, headers=None if kid is None else {"kid": kid})


def _who(token: str, *keys: dict[str, Any]) -> Caller | None:
    document = json.dumps({"keys": list(keys) or [_jwk(_RSA, "one")]}).encode()

    async def fetch(_: str) -> bytes:
        return document

    async def main() -> Caller | None:
        tokens = Tokens(_CONFIG, fetch=fetch)
        await tokens.open()
        return await tokens.caller(token)

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(_RSA, "RS256"), (ec.generate_private_key(ec.SECP256R1()), "ES256"), (ed25519.Ed25519PrivateKey.generate(), "EdDSA")],
    ids=["rsa", "p-256", "ed25519"],
)
def test_a_token_says_who_its_bearer_is(key: Any, algorithm: str) -> None:
    """Subject, tenant and role are the claims'."""
    token = _token(_claims(role="admin"), key=key, algorithm=algorithm)
    assert _who(token, _jwk(key, "one")) == Caller("ann", "acme", Role.ADMIN, "jwt")


def test_the_highest_of_several_known_roles_counts() -> None:
    """Others are another service's."""
    assert _who(_token(_claims(role=["viewer", "owner", "operator"]))) == Caller("ann", "acme", Role.OPERATOR, "jwt")


_OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_PUBLIC = _RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _forged_with_public_key() -> str:
    """A token signed by HMAC with the public key as its secret, as PyJWT itself refuses to make."""
    import base64
    import hashlib
    import hmac

    def part(document: Any) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=")

    claims = _claims()
    claims["exp"] = int(claims["exp"].timestamp())
    signed = part({"alg": "HS256", "typ": "JWT", "kid": "one"}) + b"." + part(claims)
    signature = hmac.new(_PUBLIC, signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


@pytest.mark.parametrize(
    "token",
    [
        _token(key=_OTHER),
        _token(_claims(exp=_NOW - dt.timedelta(minutes=2))),
        _token(_claims(nbf=_NOW + dt.timedelta(hours=9))),
        _token(_claims(aud="somebody")),
        _token(_claims(iss="https://other")),
        _token(_claims(exp=None)),
        _token(_claims(sub=None)),
        _token(_claims(role="owner")),
        _token(_claims(tenant=["acme"])),
        _token(_claims(sub="ann\ud800")),
        _token(_claims(tenant="acme\nother")),
        _token(kid="../../etc/passwd"),
        jwt.encode(_claims(), "", algorithm="none", headers={"kid": "one"}),
        _forged_with_public_key(),
        _token(algorithm="RS384"),
        _token()[:-4] + "AAAA",
        _token(_claims(pad="x" * 9000)),
        "a.b.c",
        "",
    ],
    ids=[
        "other key",
        "expired",
        "not yet",
        "audience",
        "issuer",
        "no expiry",
        "no subject",
        "role",
        "tenant",
        "half a character",
        "a line end",
        "kid",
        "none",
        "hmac with the public key",
        "algorithm",
        "signature",
        "long",
        "rubbish",
        "empty",
    ],
)
def test_a_token_that_proves_nothing_is_nobodys(token: str) -> None:
    """Whatever is wrong with it."""
    assert _who(token) is None


def test_shared_secrets_among_the_issuers_keys_are_passed_over() -> None:
    """Whoever can read them could sign."""
    secret = {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I", "kid": "one"}
    assert _who(_token(), secret, _jwk(_RSA, "two")) is None


def test_keys_are_asked_for_again_when_a_token_names_an_unknown_one_and_not_too_often() -> None:
    """A new key is believed at once; a flood of made-up ones asks the issuer twice a minute; an outage leaves the keys at hand."""
    served, now, asked = [_jwk(_RSA, "one")], [1000.0], [0]

    async def fetch(_: str) -> bytes:
        asked[0] += 1
        if not served:
            raise OSError
        return json.dumps({"keys": served}).encode()

    async def main() -> None:
        tokens = Tokens(_CONFIG, fetch=fetch, clock=lambda: now[0])
        await tokens.open()
        now[0] += 31
        served.append(_jwk(_OTHER, "two"))
        assert await tokens.caller(_token(key=_OTHER, kid="two")) is not None
        for _ in range(50):
            assert await tokens.caller(_token(key=_OTHER, kid="three")) is None
        assert asked[0] == 2
        served.clear()
        now[0] += 700
        assert await tokens.caller(_token()) is not None
        await asyncio.sleep(0)
        now[0] += 86_400
        assert await tokens.caller(_token()) is None

    asyncio.run(main())


def test_an_issuer_without_keys_ends_the_start() -> None:
    """No token could ever be checked."""

    async def fetch(_: str) -> bytes:
        return b'{"keys": []}'

    with pytest.raises(ConfigError, match="no usable keys"):
        asyncio.run(Tokens(_CONFIG, fetch=fetch).open())


def test_a_caller_is_known_by_a_key_in_either_header() -> None:
    """`Authorization: Bearer` and `X-API-Key`; whoever sends a wrong one is nobody, whatever else they send."""
    entry = KeyEntry("bob", "acme", Role.VIEWER, fingerprint(_KEY))
    who = Identification(keys=ApiKeys([entry]))
    bob = Caller("bob", "acme", Role.VIEWER, "api_key")

    async def ask(*headers: tuple[bytes, bytes]) -> Caller | None:
        return await who.caller(_scope(*headers), dict(headers))

    async def main() -> None:
        assert await ask((b"authorization", b"Bearer " + _KEY.encode())) == bob
        assert await ask((b"x-api-key", _KEY.encode())) == bob
        for wrong in ((b"authorization", b"Bearer x"), (b"authorization", b"Basic " + _KEY.encode()), (b"x-api-key", b"\xff")):
            assert await ask((b"x-api-key", _KEY.encode()), wrong) is None
        assert await ask() is None

    asyncio.run(main())


def test_roles_are_asked_for() -> None:
    """A viewer sends no messages; nobody at all is told so in the same words whatever was wrong."""
    entry = KeyEntry("bob", "acme", Role.VIEWER, fingerprint(_KEY))
    guard = CallerGuard(Identification(keys=ApiKeys([entry])))

    async def main() -> None:
        with pytest.raises(Problem) as known:
            await guard.identify(_scope((b"x-api-key", _KEY.encode())))
        assert known.value.status == 403
        messages = set()
        for headers in ((), ((b"authorization", b"Bearer x"),), ((b"authorization", b"Basic x"),)):
            with pytest.raises(Problem) as unknown:
                await guard.identify(_scope(*headers))
            messages.add((unknown.value.status, unknown.value.message, unknown.value.headers))
        assert messages == {(401, "Who you are is not proved.", ((b"www-authenticate", b"Bearer"),))}

    asyncio.run(main())


def test_the_file_of_keys_is_read_anew_when_it_changes(tmp_path: Path) -> None:
    """New keys count and removed ones do not; a file that is wrong leaves the keys from before."""
    file, now = tmp_path / "keys.yaml", [0.0]
    other = "sage_another_key_of_theirs"

    def write(*keys: str) -> None:
        file.write_text(json.dumps([{"id": key, "sha256": fingerprint(key)} for key in keys]))
        now[0] += 10

    write(_KEY)
    keys = ApiKeys([], file, clock=lambda: now[0])
    assert keys.caller(_KEY) is not None
    write(_KEY, other)
    assert keys.caller(other) is not None
    write(other)
    assert keys.caller(_KEY) is None
    file.write_text("[{id: x}]")
    now[0] += 10
    assert keys.caller(other) is not None
    file.unlink()
    now[0] += 10
    assert keys.caller(other) is not None
    with pytest.raises(ConfigError, match="Cannot read the API keys"):
        ApiKeys([], file)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("[", "JSON list"),
        ([{"id": "a"}], "either"),
        ([{"id": "a", "key": "short"}], "shorter"),
        ([{"id": "a", "sha256": "zz"}], "64 hexadecimal"),
        ([{"id": "a", "key": _KEY, "role": "root"}], "viewer, operator, admin"),
        ([{"id": "a", "key": _KEY, "name": "x"}], "unknown `name`"),
        ([{"id": "a", "key": _KEY}, {"id": "b", "key": _KEY}], "twice"),
    ],
)
def test_keys_that_cannot_be_used_are_explained_without_them(given: object, words: str) -> None:
    """The message names what is wrong, and no key."""
    with pytest.raises(ValueError, match=words) as error:
        parse_api_keys(given)
    assert _KEY not in str(error.value)


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "1.1.1.1, nonsense", "10.0.0.1"),
        ("10.0.0.1", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("::ffff:203.0.113.9", "", "203.0.113.9"),
    ],
)
def test_a_client_is_where_a_trusted_proxy_says(peer: str, forwarded: str, found: str) -> None:
    """What anybody could have written is not believed."""
    assert client_address(peer, forwarded, [ipaddress.ip_network("10.0.0.0/8")]) == found


def test_callers_are_told_how_much_is_left_and_refused_when_nothing_is() -> None:
    """The headers count down; the refusal says when to come again; another address has its own."""
    now = [100.0]
    guard = RateGuard(OpenGuard(), MemoryLimits(lambda: now[0]), Rate(1.0, 2))

    async def main() -> None:
        for left in (b"1", b"0"):
            scope = _scope()
            await guard.identify(scope)
            assert dict(said_also(scope))[b"x-ratelimit-remaining"] == left
        scope = _scope()
        with pytest.raises(Problem) as refused:
            await guard.identify(scope)
        assert (refused.value.status, refused.value.retry_after) == (429, 1)
        assert dict(said_also(scope)) == {
            b"x-ratelimit-limit": b"2",
            b"x-ratelimit-remaining": b"0",
            b"x-ratelimit-reset": b"2",
        }
        await guard.identify(_scope(client="192.0.2.2"))

    asyncio.run(main())


def test_who_guesses_is_limited_too() -> None:
    """Wrong keys are counted by the address they come from."""
    inner = CallerGuard(Identification(keys=ApiKeys([])))
    guard = RateGuard(inner, MemoryLimits(lambda: 0.0), Rate(1.0, 3))

    async def main() -> list[int]:
        statuses = []
        for _ in range(5):
            with pytest.raises(Problem) as refused:
                await guard.identify(_scope((b"x-api-key", b"guess")))
            statuses.append(int(refused.value.status))
        return statuses

    assert asyncio.run(main()) == [401, 401, 401, 429, 429]


@pytest.mark.parametrize("refuse", [False, True], ids=["let in", "refused"])
def test_a_store_that_is_lost_lets_callers_in_or_refuses_them(caplog: pytest.LogCaptureFixture, *, refuse: bool) -> None:
    """As the setting says, and the log says so once."""

    class Lost:
        async def take(self, key: str, rate: Rate, *, cost: int = 1) -> Taken:
            del key, rate, cost
            raise StateError("gone")

    guard = RateGuard(OpenGuard(), Lost(), Rate(1.0, 1), refuse_blind=refuse)

    async def main() -> None:
        for _ in range(3):
            if refuse:
                with pytest.raises(Problem, match="cannot be asked"):
                    await guard.identify(_scope())
            else:
                await guard.identify(_scope())

    asyncio.run(main())
    assert [record.message for record in caplog.records] == ["rate limits cannot be asked"]


def _certificate(*names: x509.GeneralName) -> bytes:
    key, nobody = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    made = x509.CertificateBuilder(nobody, nobody, key.public_key(), 1, _NOW, _NOW + dt.timedelta(days=1))
    return (
        made.add_extension(x509.SubjectAlternativeName(names), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


@pytest.mark.parametrize(
    ("name", "allowed", "known"),
    [
        ("spiffe://prod.example/agent/a", "uri:spiffe://prod.example/agent/a", True),
        ("spiffe://prod.example/agent/a", "uri:spiffe://prod.example/agent/*", True),
        ("spiffe://prod.example/agent/a", "uri:spiffe://prod.example/*", True),
        ("spiffe://prod.example.evil/agent/a", "uri:spiffe://prod.example/*", False),
        ("spiffe://prod.example/agentry", "uri:spiffe://prod.example/agent/*", False),
        ("spiffe://prod.example/agent/ab", "uri:spiffe://prod.example/agent/a", False),
        ("a.example", "dns:a.example", True),
        ("A.example", "dns:a.EXAMPLE", True),
        ("a.example", "dns:*.example", True),
        ("b.a.example", "dns:*.example", False),
        ("a.example.evil", "dns:*.example", False),
        ("a.example", "uri:a.example", False),
    ],
)
def test_a_certificate_is_known_by_a_name_that_is_allowed(name: str, allowed: str, *, known: bool) -> None:
    """Exactly, one label before a domain, or below a path; never by what merely begins alike."""
    kind = x509.UniformResourceIdentifier if "://" in name else x509.DNSName
    allow = _allowed((allowed,)) if allowed != "uri:a.example" else (allowed,)
    caller = Certificates(allow).caller(_certificate(kind(name)))
    assert (caller is not None) == known
    if caller is not None:
        assert (caller.id.partition(":")[2], caller.how) == (name if "://" in name else name.lower(), "mtls")


@pytest.mark.parametrize(
    "name", ["", "a", "dns:", "dns:*", "dns:a*", "dns:*.", "uri:", "uri:*", "uri:spiffe://a*", "uri:spiffe://*", "dns:a b"]
)
def test_names_that_allow_too_much_are_refused(name: str) -> None:
    """A star stands for a label or for what is below a path, nothing else."""
    with pytest.raises(ConfigError, match="allow"):
        _allowed((name,))
