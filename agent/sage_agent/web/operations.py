"""What can be asked over HTTP, as data beside the routes: what `/openapi.json` is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sage_agent.callers import Role
from sage_obs.conventions import HEALTH_PATHS, ErrorType

Schema = Mapping[str, Any]
JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Operation:
    """What a method does at a path: the schema of its body, where it has one, and of its answer.

    `role` is what it takes where callers are known, None for anybody. `errors` are statuses that are answered with an `Error`, beside those
    of every request, and `also` statuses with another schema.
    """

    method: str
    path: str
    summary: str
    answer: Schema
    body: Schema | None = None
    media_type: str = JSON
    role: Role | None = None
    errors: tuple[int, ...] = ()
    also: Mapping[int, Schema] = field(default_factory=dict)


def ref(name: str) -> Schema:
    """One of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def record(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, **more: Any) -> Schema:
    """A JSON object with these members."""
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required), **more}


TEXT: Final[Schema] = {"type": "string"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_NAME: Final[Schema] = {"type": ["string", "null"]}
_METADATA: Final = record({"model": TEXT}, {"usage": ref("Usage"), "cached": {"type": "boolean"}})


def _event(name: str, data: str) -> Schema:
    """A server-sent event of this name, whose data is one of `SCHEMAS` as JSON."""
    return record({"event": {"const": name}, "data": {**TEXT, "contentMediaType": JSON, "contentSchema": ref(data)}})


SCHEMAS: Final[Mapping[str, Schema]] = {
    "TextPart": record({"kind": {"const": "text"}, "text": TEXT}),
    "DataPart": record({"kind": {"const": "data"}, "data": {"type": "object"}}),
    "Message": record(
        {"parts": {"type": "array", "minItems": 1, "items": {"anyOf": [ref("TextPart"), ref("DataPart")]}}},
        {
            "kind": {"const": "message"},
            "role": {"enum": ["user", "agent"]},
            "messageId": _NAME,
            "contextId": {**_NAME, "maxLength": 256, "description": "The conversation it belongs to."},
            "taskId": _NAME,
            "referenceTaskIds": {"type": ["array", "null"], "items": TEXT},
            "metadata": {"type": ["object", "null"]},
        },
        examples=[{"parts": [{"kind": "text", "text": "Hello"}]}],
    ),
    "Asked": {
        "description": "A message, bare or as `message`.",
        "anyOf": [ref("Message"), {**record({"message": ref("Message")}), "not": {"required": ["parts"]}}],
    },
    "Usage": record({}, {"input_tokens": COUNT, "output_tokens": COUNT}),
    "Reply": record(
        {
            "kind": {"const": "message"},
            "messageId": TEXT,
            "role": {"const": "agent"},
            "parts": {"type": "array", "minItems": 1, "items": ref("TextPart")},
            "metadata": _METADATA,
        },
        {"contextId": TEXT, "taskId": TEXT},
    ),
    "End": record({"messageId": TEXT, "metadata": _METADATA}),
    "Event": {
        "description": "One server-sent event: a message for each piece, then how it ended.",
        "oneOf": [_event("message", "Reply"), _event("done", "End"), _event("error", "Error")],
    },
    "Error": record({"error": record({"type": {"enum": [one.value for one in ErrorType]}, "message": TEXT, "request_id": TEXT})}),
    "Health": record(
        {"name": TEXT, "status": {"enum": ["healthy", "degraded", "unhealthy"]}}, {"message": TEXT, "details": {"type": "object"}}
    ),
}

HEALTH: Final = tuple(
    Operation("GET", path, f"Probe: {probe.value}.", ref("Health"), also={503: ref("Health")}) for path, probe in HEALTH_PATHS.items()
)
