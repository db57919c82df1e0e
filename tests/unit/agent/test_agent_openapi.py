"""The OpenAPI document says what is served, for every configuration."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openapi_spec_validator import validate

from sage_agent import config
from sage_agent.parts import describe
from sage_agent.security import admin
from sage_agent.web.app import App

_KEYS = json.dumps([{"id": "ann", "key": "sage_a_key_that_is_long_enough"}])
_JWT = {"SAGE_JWT_ISSUER": "https://issuer.example", "SAGE_JWT_AUDIENCE": "agent", "SAGE_JWT_JWKS": "https://issuer.example/jwks"}
_DID = {"SAGE_DID_CALLERS": json.dumps([{"did": "*"}])}
_TOKEN = "a token of the administrators"  # noqa: S105 - a test's


def _described(**environ: str) -> dict[str, Any]:
    return describe(config.load(file=None, environ=environ))


@pytest.mark.parametrize(
    ("environ", "schemes"),
    [
        ({}, set()),
        ({"SAGE_API_KEYS": _KEYS}, {"apiKey", "bearer"}),
        (_JWT, {"bearer"}),
        ({"SAGE_DID_MODE": "required", **_DID}, {"signature"}),
        ({"SAGE_DID_MODE": "optional", "SAGE_API_KEYS": _KEYS, **_DID}, {"apiKey", "bearer", "signature"}),
        ({"SAGE_DID_MODE": "optional", **_DID}, set()),
    ],
    ids=["anybody", "keys", "tokens", "signatures", "keys or signatures", "signed or not"],
)
def test_the_document_is_valid_and_names_what_callers_prove_themselves_by(environ: dict[str, str], schemes: set[str]) -> None:
    """OpenAPI 3.1, and a message needs one of the schemes that are configured."""
    found = _described(**environ)
    validate(found)
    needed = found["paths"]["/v1/messages"]["post"].get("security", [])
    assert {name for one in needed for name in one} == schemes
    assert "security" not in found["paths"]["/health/live"]["get"]
    assert set(found["components"].get("securitySchemes", {})) == schemes


def test_what_is_off_is_not_described() -> None:
    """`/admin/`, A2A and probes are in it where they are served."""
    whole = _described(SAGE_ADMIN_ENABLED="true", SAGE_ADMIN_TOKEN=_TOKEN)
    validate(whole)
    assert {"/admin/info", "/a2a", "/health/ready"} < set(whole["paths"])
    assert whole["paths"]["/admin/drain"]["post"]["security"] == [{"adminToken": []}]
    less = _described(SAGE_A2A_ENABLED="false", SAGE_HEALTH_ENABLED="false")
    validate(less)
    assert set(less["paths"]) == {"/v1/messages", "/a2a/v1/messages", "/sage/message", "/v1/messages/stream", "/openapi.json"}


def test_every_route_is_described() -> None:
    """What the application and `/admin/` answer is what the document says."""
    whole = _described(SAGE_ADMIN_ENABLED="true", SAGE_ADMIN_TOKEN=_TOKEN, SAGE_A2A_ENABLED="false")
    described = {(method.upper(), path) for path, methods in whole["paths"].items() for method in methods}
    routes = App(None, None)._routes  # type: ignore[arg-type]
    served = {(methods[0], path) for path, (methods, _) in routes.items()}
    assert described == served | {(one.method, one.path) for one in admin.OPERATIONS}
