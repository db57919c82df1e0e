"""Published test vectors of signed messages verify, and none of them does once it is changed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from sage_agent.security.keys import VerifyingKey, of_public, of_sage
from sage_agent.security.signatures import Headers, RefusedError, Request, check_claim, covered_by, read_claim, verify

_DATA = Path(__file__).parent / "data"
RFC: dict[str, Any] = json.loads((_DATA / "rfc9421_vectors.json").read_text())
SAGE: dict[str, Any] = json.loads((_DATA / "sage_vectors.json").read_text())
_PARAMETERS = frozenset({"created", "keyid", "nonce", "tag", "alg"})


def _lines(message: dict[str, Any], vector: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    own = [("signature-input", vector["signature_input"]), ("signature", vector["signature"])]
    return [(name.encode(), value.encode()) for name, value in (*message["headers"], *own)]


def _named(vectors: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in vectors]


@pytest.mark.parametrize("vector", _named(RFC["vectors"]))
def test_the_rfcs_own_vectors_verify(vector: dict[str, Any]) -> None:
    """Appendix B of RFC 9421 but for B.2.5, whose shared secret is nothing a DID can name."""
    message = RFC[vector["message"]]
    headers = Headers(_lines(message, vector))
    given: Any = Request(RFC["request"]["method"], RFC["request"]["url"], headers)
    if vector["message"] == "response":
        given = SimpleNamespace(status_code=message["status"], headers=headers, request=given)
    key = of_public(load_pem_public_key(RFC["keys"][vector["key"]].encode()))
    assert '"@signature-params"' in covered_by(given, key, _PARAMETERS)
    other = of_public(load_pem_public_key(RFC["keys"]["test-key-ed25519" if key.alg != "ed25519" else "test-key-ecc-p256"].encode()))
    with pytest.raises(RefusedError):
        covered_by(given, other, _PARAMETERS)


def _sage_key(alg: str) -> VerifyingKey:
    return of_sage(alg, bytes.fromhex(SAGE["keys"][alg]))


def _check(vector: dict[str, Any], *, body: bytes | None = None, alg: str = "", url: str = "") -> None:
    """What the guard does, as the vector's receiver would."""
    message = SAGE["request"]
    lines = _lines(message, vector)
    claim = read_claim(lines)
    sent = message["body"].encode() if body is None else body
    check_claim(claim, now=SAGE["created"] + 1.0, window=300, body=sent)
    verify(Request(message["method"], url or message["url"], Headers(lines)), claim, _sage_key(alg or vector["alg"]), sent)


@pytest.mark.parametrize("vector", _named(SAGE["vectors"]))
def test_sages_requests_verify_as_a_receiver_sees_them(vector: dict[str, Any]) -> None:
    """The SAGE specification's signed requests pass every check of this agent, freshness at their own time included."""
    _check(vector)


@pytest.mark.parametrize("vector", _named(SAGE["vectors"]))
def test_sages_requests_do_not_verify_once_changed(vector: dict[str, Any]) -> None:
    """Another body, another address, another key, another time: each is refused."""
    for change in (
        {"body": SAGE["request"]["body"].replace("hello", "hullo").encode()},
        {"url": SAGE["request"]["url"] + "?x"},
        {"url": "https://agent-c.example/mcp/tools/call"},
        {"alg": "ed25519" if vector["alg"] != "ed25519" else "es256k"},
    ):
        with pytest.raises(RefusedError):
            _check(vector, **change)
    with pytest.raises(RefusedError):
        _check({**vector, "signature_input": vector["signature_input"].replace("created=1788609600", "created=1788609601")})
