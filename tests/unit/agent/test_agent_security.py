"""Who may ask, and how often."""

from __future__ import annotations

import asyncio
import contextlib
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
from sage_agent.security.config import JwtConfig, RatesConfig, _allowed
from sage_agent.security.fingerprints import fingerprint
from sage_agent.security.guard import CallerGuard, Identification, RateGuard, RoleGuard
from sage_agent.security.options import KeyEntry, parse_api_keys, parse_role_rates
from sage_agent.security.tokens import Tokens, fetch_url
from sage_agent.state.base import UNLIMITED, Rate, StateError, Taken
from sage_agent.state.memory import MemoryLimits
from sage_agent.web.guard import OpenGuard, said_also
from sage_obs.errors import ConfigError

_KEY = "sage_0123456789abcdef"
_CONFIG = JwtConfig("https://issuer", "agent", "file", ("RS256", "ES256", "EdDSA"), 30.0, "tenant", "role")
_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_NOW = dt.datetime.now(dt.UTC)


def _scope(*headers: tuple[bytes, bytes], client: str = "192.0.2.1") -> dict[str, Any]:
    return {"headers": list(headers), "client": (client, 5)}


def _everybody(rate: Rate) -> RatesConfig:
    return RatesConfig(rate, {})


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
        _token(_claims(sub="a" * 257)),
        _token(_claims(tenant="a" * 257)),
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
        "a long subject",
        "a long tenant",
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


def test_private_keys_among_the_issuers_keys_are_passed_over() -> None:
    """The same: and a token that names one is nobody's, not a failure."""
    private = {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(_RSA)), "kid": "one"}
    assert _who(_token(), private, _jwk(_OTHER, "two")) is None


def test_an_issuer_that_answers_drop_by_drop_is_given_up_on() -> None:
    """Five seconds are for the whole of the keys, not for each piece of them."""

    async def main() -> None:
        gone = asyncio.Event()

        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                while not reader.at_eof():
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.01)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            gone.set()

        server = await asyncio.start_server(drip, "127.0.0.1", 0)
        with pytest.raises(TimeoutError):
            await fetch_url(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        await gone.wait()
        server.close()
        await server.wait_closed()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sage_agent.security.tokens._FETCH_SECONDS", 0.3)
        asyncio.run(main())


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
    guard = RoleGuard(CallerGuard(Identification(keys=ApiKeys([entry]))))

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


def test_keys_that_are_written_while_the_file_is_read_count_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is known as it was before it was read, so that what came meanwhile is a change."""
    file, now, real, late = tmp_path / "keys.yaml", [0.0], Path.read_text, [True]

    def read(path: Path) -> str:
        text = real(path)
        if late and late.pop():
            file.write_text(json.dumps([{"id": "new", "sha256": fingerprint(_KEY)}, {"id": "other", "sha256": fingerprint("other")}]))
        return text

    file.write_text("[]")
    monkeypatch.setattr(Path, "read_text", read)
    keys = ApiKeys([], file, clock=lambda: now[0])
    now[0] += 10
    assert keys.caller(_KEY) is not None


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
        ([{"id": "a", "key": _KEY, "rate_limit": 5}], "key 1: `rate_limit`: expected `per_second`"),
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
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8:1:2::3]:4711, 10.0.0.2:80", "2001:db8:1:2::"),
        ("10.0.0.1", "[]:1", "10.0.0.1"),
        ("::ffff:203.0.113.9", "", "203.0.113.9"),
    ],
)
def test_a_client_is_where_a_trusted_proxy_says(peer: str, forwarded: str, found: str) -> None:
    """What anybody could have written is not believed."""
    assert client_address(peer, forwarded, [ipaddress.ip_network("10.0.0.0/8")]) == found


def test_callers_are_told_how_much_is_left_and_refused_when_nothing_is() -> None:
    """The headers count down; the refusal says when to come again; another address has its own."""
    now = [100.0]
    guard = RateGuard(OpenGuard(), MemoryLimits(lambda: now[0]), _everybody(Rate(1.0, 2)))

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


def test_each_has_its_own_rate_or_its_roles_or_everybodys() -> None:
    """A key's beats its role's, that beats what is set for all; 0 is no limit, and an agent without any for all limits who has one."""
    rates = RatesConfig(Rate(1.0, 2), {Role.VIEWER: Rate(1.0, 5), Role.ADMIN: UNLIMITED})
    entries = parse_api_keys(
        [
            {"id": "plain", "key": "0123456789abcdef plain"},
            {"id": "viewer", "key": "0123456789abcdef viewer", "role": "viewer"},
            {"id": "own", "key": "0123456789abcdef own", "role": "viewer", "rate_limit": {"per_second": 2, "burst": 3}},
            {"id": "free", "key": "0123456789abcdef free", "rate_limit": {"per_second": 0}},
            {"id": "admin", "key": "0123456789abcdef admin", "role": "admin"},
        ]
    )
    inner = CallerGuard(Identification(keys=ApiKeys(entries)))

    async def let_in(name: str, among: RatesConfig) -> int:
        guard, key = RateGuard(inner, MemoryLimits(lambda: 0.0), among), f"0123456789abcdef {name}".encode()
        for count in range(10):
            try:
                await guard.identify(_scope((b"x-api-key", key)))
            except Problem:
                return count
        return 10

    async def main() -> None:
        assert {name: await let_in(name, rates) for name in ("plain", "viewer", "own", "free", "admin")} == {
            "plain": 2,
            "viewer": 5,
            "own": 3,
            "free": 10,
            "admin": 10,
        }
        assert [await let_in(name, _everybody(UNLIMITED)) for name in ("plain", "own")] == [10, 3]

    asyncio.run(main())


def test_a_caller_with_two_rates_cannot_lose_the_one_in_the_other() -> None:
    """Each is counted by itself: coming by a quick key does not give back what is used up of a slow one."""
    slow, quick = "0123456789abcdef slow", "0123456789abcdef quick"
    entries = parse_api_keys(
        [
            {"id": "ann", "key": slow, "rate_limit": {"per_second": 0.001, "burst": 2}},
            {"id": "ann", "key": quick, "rate_limit": {"per_second": 1000, "burst": 1000}},
        ]
    )
    guard = RateGuard(CallerGuard(Identification(keys=ApiKeys(entries))), MemoryLimits(lambda: 0.0), _everybody(UNLIMITED))

    async def main() -> int:
        let_in = 0
        for _ in range(6):
            await guard.identify(_scope((b"x-api-key", quick.encode())))
            try:
                await guard.identify(_scope((b"x-api-key", slow.encode())))
            except Problem:
                continue
            let_in += 1
        return let_in

    assert asyncio.run(main()) == 2


@pytest.mark.parametrize(
    ("one", "other"), [(("acme", "x/y"), ("acme/x", "y")), (("", "a/b"), ("/a", "b")), (('a", "b', "c"), ("a", 'b", "c'))]
)
def test_names_with_separators_are_nobody_elses(one: tuple[str, str], other: tuple[str, str]) -> None:
    """Two callers never share what is kept of either, whatever their tenants and ids hold."""
    assert Caller(one[1], one[0]).owner != Caller(other[1], other[0]).owner
    limits = MemoryLimits(lambda: 0.0)

    class Known:
        async def identify(self, scope: Any) -> Caller:
            return Caller(scope["who"][1], scope["who"][0], how="jwt")

        async def verify(self, scope: Any, body: bytes, caller: Caller) -> Caller:
            del scope, body
            return caller

    async def main() -> None:
        for who in (one, other):
            await RateGuard(Known(), limits, _everybody(Rate(1.0, 1))).identify({**_scope(), "who": who})

    asyncio.run(main())


def test_an_answer_says_once_what_is_left() -> None:
    """A caller who is limited by address first, and by name once it is proved, is told of the second."""
    proved = Caller("did:key:z", how="did")

    class Signed(OpenGuard):
        async def verify(self, scope: Any, body: bytes, caller: Caller) -> Caller:
            del scope, body, caller
            return proved

    guard = RateGuard(Signed(), MemoryLimits(lambda: 0.0), RatesConfig(Rate(1.0, 9), {Role.OPERATOR: Rate(1.0, 5)}))
    scope = _scope()

    async def main() -> None:
        await guard.verify(scope, b"", await guard.identify(scope))

    asyncio.run(main())
    assert said_also(scope) == ((b"x-ratelimit-limit", b"5"), (b"x-ratelimit-remaining", b"4"), (b"x-ratelimit-reset", b"1"))


def test_every_line_of_x_forwarded_for_is_read() -> None:
    """Proxies in a row may each add a line of their own: two callers behind them are two."""
    proxies = (ipaddress.ip_network("10.0.0.0/8"),)
    guard = RateGuard(OpenGuard(), MemoryLimits(lambda: 0.0), _everybody(Rate(1.0, 1)), proxies=proxies)

    async def main() -> None:
        for client in (b"198.51.100.1", b"198.51.100.2"):
            await guard.identify(_scope((b"x-forwarded-for", client), (b"x-forwarded-for", b"10.0.0.2"), client="10.0.0.1"))

    asyncio.run(main())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("[", "JSON list"),
        ({"viewer": 3}, "a list"),
        ([{"per_second": 1}], "rate 1: expected a mapping with `role`"),
        ([{"role": "root", "per_second": 1}], "rate 1: `role` is one of viewer, operator, admin"),
        ([{"role": "viewer", "burst": 3}], "per_second"),
        ([{"role": "viewer", "per_second": 1, "window": 3}], "per_second"),
        ([{"role": "viewer", "per_second": -1}], "at least 0"),
        ([{"role": "viewer", "per_second": 1e-300}], "one a day"),
        ([{"role": "viewer", "per_second": 1, "burst": 1.5}], "whole number"),
        ([{"role": "viewer", "per_second": 1}, {"role": "VIEWER", "per_second": 2}], "rate 2: viewer is there twice"),
    ],
)
def test_rates_that_make_no_sense_are_explained(given: object, words: str) -> None:
    """The sentence says of which role, and what is expected."""
    with pytest.raises(ValueError, match=words):
        parse_role_rates(given)


def test_who_guesses_is_limited_too() -> None:
    """Wrong keys are counted by the address they come from."""
    inner = CallerGuard(Identification(keys=ApiKeys([])))
    guard = RateGuard(inner, MemoryLimits(lambda: 0.0), _everybody(Rate(1.0, 3)))

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

    guard = RateGuard(OpenGuard(), Lost(), _everybody(Rate(1.0, 1)), refuse_blind=refuse)

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
