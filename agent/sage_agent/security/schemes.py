"""How callers prove who they are, as OpenAPI's security schemes."""

from __future__ import annotations

from typing import Any, Final

from sage_agent.security.config import SecurityConfig
from sage_agent.security.did_config import DidConfig
from sage_agent.web.openapi import Schemes

_KEY: Final = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
_BEARER: Final = {"type": "http", "scheme": "bearer"}
_CERTIFICATE: Final = {"type": "mutualTLS"}
_SIGNATURE: Final = {"type": "apiKey", "in": "header", "name": "Signature", "description": "An HTTP message signature by a DID (RFC 9421)."}


def callers(security: SecurityConfig, did: DidConfig) -> Schemes:
    """What a message has to come with; nothing where anybody may send one."""
    if did.mode == "required":
        return {"signature": _SIGNATURE}
    known = credentials(security)
    return {**known, "signature": _SIGNATURE} if known and did.mode != "off" else known


def credentials(security: SecurityConfig) -> Schemes:
    """What the head of a request is recognised by."""
    found: dict[str, dict[str, Any]] = {}
    keys = bool(security.api_keys or security.api_keys_file)
    if keys:
        found["apiKey"] = _KEY
    if keys or security.jwt is not None:
        found["bearer"] = {**_BEARER, **({"bearerFormat": "JWT"} if security.jwt is not None and not keys else {})}
    if security.allow:
        found["certificate"] = _CERTIFICATE
    return found


def admins(security: SecurityConfig) -> Schemes:
    """What a request to `/admin/` has to come with."""
    token = security.admin is not None and bool(security.admin.token)
    return {**credentials(security), **({"adminToken": _BEARER} if token else {})}
