"""Reading the JSON of a provider, which may be anything."""

from __future__ import annotations

import json
from typing import Any

import orjson

from sage_agent.llm.providers.base import ToolCall, ToolSpec
from sage_agent.llm.providers.failures import failed_midway, malformed

Document = dict[str, Any]


def read_document(body: bytes) -> Document:
    """A JSON object. Raises ProviderError where it is none."""
    try:
        document = orjson.loads(body)
    except json.JSONDecodeError:
        raise malformed("it is not JSON") from None
    if not isinstance(document, dict):
        raise malformed("it is not a JSON object")
    return document


def read_event(data: bytes) -> Document:
    """A JSON object out of a stream. Raises ProviderError where it is none, and where it is an error."""
    document = read_document(data)
    if isinstance(document.get("error"), dict):
        raise failed_midway(document["error"])
    return document


def inner(document: Document, name: str) -> Document:
    """The object under a name; an empty one where there is none."""
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def objects(document: Document, name: str) -> list[Document]:
    """The objects in the list under a name."""
    values = document.get(name)
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def word(document: Document, name: str) -> str:
    """The text under a name; an empty one where there is none."""
    value = document.get(name)
    return value if isinstance(value, str) else ""


def schema_of(tool: ToolSpec) -> Document:
    """What a tool's arguments are."""
    schema: Document = orjson.loads(tool.schema)
    return schema


def arguments_of(call: ToolCall) -> Document:
    """The arguments of a call, which a model may have got wrong; then there are none."""
    try:
        arguments = orjson.loads(call.arguments)
    except json.JSONDecodeError:
        return {}
    return arguments if isinstance(arguments, dict) else {}


def count(document: Document, name: str, *, otherwise: int | None = None) -> int | None:
    """A number of tokens; `otherwise` where there is nothing under the name, None for what is no number of tokens."""
    value = document.get(name)
    if value is None:
        return otherwise
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def part(document: Document, name: str) -> int:
    """A number of tokens that is a part of another; 0 where it is not said."""
    return count(document, name) or 0
