"""Tokens of an issuer, at a real agent."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.agents import BODY, running_agent

_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _part(document: dict[str, Any]) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=")


def _confused(claims: dict[str, Any]) -> str:
    """Signed with the public key as if it were a shared secret."""
    public = _KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signed = _part({"alg": "HS256", "kid": "one"}) + b"." + _part(claims)
    return (signed + b"." + base64.urlsafe_b64encode(hmac.new(public, signed, hashlib.sha256).digest()).rstrip(b"=")).decode()


def test_every_attack_is_answered_alike(tmp_path: Path) -> None:
    """The issuer's token is let in; all others get one 401 that differs in the request id only."""
    jwk = {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(_KEY.public_key())), "kid": "one", "use": "sig"}
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
    environ = {"SAGE_JWT_ISSUER": "https://issuer", "SAGE_JWT_AUDIENCE": "agent", "SAGE_JWT_JWKS": str(tmp_path / "jwks.json")}
    now = int(time.time())
    good = {"iss": "https://issuer", "aud": "agent", "sub": "ann", "tenant": "acme", "exp": now + 300}

    def signed(kid: str = "one", **changes: Any) -> str:
        return jwt.encode({**good, **changes}, _KEY, algorithm="RS256", headers={"kid": kid})

    attacks = {
        "none": jwt.encode(good, "", algorithm="none", headers={"kid": "one"}),
        "confusion": _confused(good),
        "expired": signed(exp=now - 300),
        "not yet": signed(nbf=now + 300),
        "audience": signed(aud="other"),
        "issuer": signed(iss="https://other"),
        "path": signed(kid="../../../../dev/null"),
        "query": signed(kid="one' OR '1'='1"),
        "huge": signed(pad="x" * 12_000),
        "rubbish": "a.b.c",
    }
    with running_agent(tmp_path, environ=environ) as agent:

        def ask(token: str) -> httpx.Response:
            return httpx.post(f"{agent.url}/v1/messages", json=BODY, headers={"authorization": f"Bearer {token}"})

        assert ask(signed()).status_code == httpx.codes.OK
        answers = {name: ask(token) for name, token in attacks.items()}
        answers["nothing"] = httpx.post(f"{agent.url}/v1/messages", json=BODY)
        assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, httpx.codes.UNAUTHORIZED)
        bodies = [answer.json()["error"] for answer in answers.values()]
        assert len({body.pop("request_id") for body in bodies}) == len(bodies)
        assert all(body == bodies[0] for body in bodies)
        assert {answer.headers["www-authenticate"] for answer in answers.values()} == {"Bearer"}
