"""The OpenAPI document of what is served."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from sage_agent.web.operations import JSON, SCHEMAS, Operation, ref

OPENAPI_VERSION: Final = "3.1.0"
_RETRIED: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_PROVED: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
Schemes = Mapping[str, Mapping[str, Any]]


def document(operations: Iterable[tuple[Operation, Schemes]], *, title: str, version: str) -> dict[str, Any]:
    """OpenAPI 3.1: each operation with the security schemes of which one is needed, none where anybody may."""
    paths: dict[str, dict[str, Any]] = {}
    schemes: dict[str, Any] = {}
    for operation, wanted in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, wanted)
        schemes |= wanted
    return {
        "openapi": OPENAPI_VERSION,
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {"schemas": dict(SCHEMAS), **({"securitySchemes": schemes} if schemes else {})},
    }


def _operation(operation: Operation, schemes: Schemes) -> dict[str, Any]:
    errors = sorted({*operation.errors, *(_PROVED if schemes else ())})
    answers = {
        "200": {"description": "OK", "content": {operation.media_type: {"schema": operation.answer}}},
        **{str(int(status)): _error(status) for status in errors},
        **{str(status): _answer(HTTPStatus(status).phrase, schema) for status, schema in operation.also.items()},
        "default": _answer("Anything but a success", ref("Error")),
    }
    found: dict[str, Any] = {"summary": operation.summary, "operationId": _name(operation), "responses": answers}
    if operation.body is not None:
        found["requestBody"] = {"required": True, "content": {JSON: {"schema": operation.body}}}
    if schemes:
        found["security"] = [{name: []} for name in schemes]
    return found


def _name(operation: Operation) -> str:
    return "_".join([operation.method.lower(), *operation.path.replace(".", "/").replace("-", "/").split("/")[1:]])


def _answer(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {JSON: {"schema": schema}}}


def _error(status: int) -> dict[str, Any]:
    answer = _answer(HTTPStatus(status).phrase, ref("Error"))
    if status in _RETRIED:
        answer["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}}
    return answer
