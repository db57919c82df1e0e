"""What is said to and by a model, in one shape for every provider, and that shape as the conventions' JSON.

The JSON is that of the conventions' schemas for `gen_ai.input.messages`, `gen_ai.output.messages`, `gen_ai.system_instructions` and
`gen_ai.tool.definitions`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import orjson

from sage_obs.metrics.budget import label_text
from sage_obs.privacy.content import Content
from sage_obs.privacy.plain import clipped, mark, plain
from sage_obs.privacy.redaction import redact

MOST_BYTES: Final = 32_768
"""Of one attribute. What is over is cut where it begins: the last messages say most of what a call was about."""
_FRAME: Final = 256
"""Bytes that are kept for what stands around a text."""
_SHARES: Final = (1, 2, 6)
"""What room is divided by until a text fits: JSON writes a line break in two bytes, and a control character in six."""
T = TypeVar("T")
_ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool"})
_ROLES_ELSEWHERE: Final = {"model": "assistant", "function": "tool"}
_FINISHES: Final = {
    "tool_calls": "tool_call",
    "function_call": "tool_call",
    "tool_use": "tool_call",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "completed": "stop",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "safety": "content_filter",
    "refusal": "content_filter",
    "failed": "error",
}
"""The providers' words for the conventions' finish reasons, where they differ by more than their case."""


@dataclass(frozen=True, slots=True)
class Text:
    """What somebody says; `kind` is `text`, or `reasoning` for what a model says to itself."""

    content: object
    kind: str = "text"


@dataclass(frozen=True, slots=True)
class Called:
    """A tool that the model calls; `arguments` is JSON or what JSON is made of."""

    id: object
    name: object
    arguments: object


@dataclass(frozen=True, slots=True)
class Returned:
    """What a tool has returned."""

    id: object
    response: object


@dataclass(frozen=True, slots=True)
class Media:
    """A picture, a sound, a file. Where it is is captured, what is in it never is."""

    modality: str
    mime_type: object = None
    uri: object = None
    file_id: object = None


@dataclass(frozen=True, slots=True)
class Other:
    """Something that has no shape of its own here."""

    kind: object


Part = Text | Called | Returned | Media | Other


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `finish_reason` is why the model ended it, "" for a message that it was sent."""

    role: object
    parts: Sequence[Part]
    finish_reason: object = ""


@dataclass(frozen=True, slots=True)
class Definition:
    """A tool that the model may call; `parameters` is its JSON schema."""

    kind: object
    name: object
    description: object = None
    parameters: object = None


def messages_json(messages: Sequence[Message], level: Content) -> str:
    """As many of the last messages as there is room for; what was left out is said first."""
    return _bounded(messages, lambda message, room: _message(message, level, room), _left_out_messages)


def parts_json(parts: Sequence[Part], level: Content) -> str:
    """The same of parts that have no message around them."""
    return _bounded(parts, lambda part, room: _part(part, level, room), lambda count: _text_part(mark(count, "parts")))


def definitions_json(definitions: Sequence[Definition], level: Content) -> str:
    """The same of definitions; of those only the names are there without content."""
    return _bounded(
        definitions,
        lambda one, room: _definition(one, level, room),
        lambda count: {"type": "function", "name": mark(count, "tools"), "description": ""},
    )


def value_json(value: object) -> str:
    """A tool's arguments or its result: text as it is, everything else as JSON."""
    found = plain(value, MOST_BYTES - _FRAME)
    return found if isinstance(found, str) else redact(orjson.dumps(found)).decode()


def _bounded(items: Sequence[T], render: Callable[[T, int], object], left_out: Callable[[int], object]) -> str:
    room, kept = MOST_BYTES - _FRAME, list[bytes]()
    for item in reversed(items):
        if (written := _fitting(item, room, render)) is None:
            kept.append(orjson.dumps(left_out(len(items) - len(kept))))
            break
        room -= len(written) + 1
        kept.append(written)
    whole = redact(b"[" + b",".join(reversed(kept)) + b"]")
    return whole.decode() if len(whole) <= MOST_BYTES else orjson.dumps([left_out(len(items))]).decode()


def _fitting(item: T, room: int, render: Callable[[T, int], object]) -> bytes | None:
    """The item as JSON in so many bytes, None where they are too few to say anything."""
    for share in _SHARES if room > 2 * _FRAME else ():
        written = orjson.dumps(render(item, (room - _FRAME) // share))
        if len(written) <= room:
            return written
    return None


def _left_out_messages(count: int) -> dict[str, object]:
    return {"role": "system", "parts": [_text_part(mark(count, "messages"))]}


def _text_part(content: str) -> dict[str, object]:
    return {"type": "text", "content": content}


def _message(message: Message, level: Content, room: int) -> dict[str, object]:
    parts: list[dict[str, object]] = []
    left = room
    for part in message.parts:
        if left < _FRAME:
            parts.append(_text_part(mark(len(message.parts) - len(parts), "parts")))
            break
        parts.append(_part(part, level, left))
        left -= len(orjson.dumps(parts[-1]))
    written: dict[str, object] = {"role": _role(message.role), "parts": parts}
    return {**written, "finish_reason": finish_of(message.finish_reason)} if message.finish_reason else written


def _role(role: object) -> str:
    name = str(getattr(role, "value", role) if role else "user").lower() if isinstance(role, str | type(None)) else "other"
    return name if name in _ROLES else _ROLES_ELSEWHERE.get(name, "other")


def finish_of(reason: object) -> str:
    """A provider's finish reason in the conventions' words; one that they have none for in its own."""
    name = label_text(getattr(reason, "value", reason)).lower()
    return _FINISHES.get(name, name)


def _part(part: Part, level: Content, room: int) -> dict[str, object]:
    match part:
        case Text(content, kind):
            head: dict[str, object] = {"type": kind, "content": ""}
            return {**head, "content": clipped(_said(content), room)} if _says(level) else _size(head, content)
        case Called(call_id, name, arguments):
            head = {"type": "tool_call", "id": _name(call_id), "name": _name(name)}
            shown = level is Content.FULL
            return {**head, "arguments": plain(arguments, room)} if shown else _size({**head, "arguments": None}, arguments)
        case Returned(call_id, response):
            head = {"type": "tool_call_response", "id": _name(call_id)}
            shown = level is Content.FULL
            return {**head, "response": plain(response, room)} if shown else _size({**head, "response": None}, response)
        case Media():
            return _media(part, level, room)
        case Other(kind):
            return {"type": _name(kind)}


def _says(level: Content) -> bool:
    return level in {Content.FULL, Content.NO_TOOL_CONTENT}


def _said(content: object) -> str:
    return content if isinstance(content, str) else value_json(content)


def _size(part: dict[str, object], content: object) -> dict[str, object]:
    """A part without its content, and how long that is where it is text."""
    return {**part, "characters": len(content)} if isinstance(content, str) else part


def _name(given: object) -> str:
    return label_text("" if given is None else getattr(given, "value", given))


def _media(part: Media, level: Content, room: int) -> dict[str, object]:
    head: dict[str, object] = {"modality": part.modality}
    if isinstance(part.mime_type, str):
        head["mime_type"] = label_text(part.mime_type)
    if isinstance(part.uri, str) and part.uri and not part.uri.startswith("data:"):
        return {"type": "uri", **head, "uri": clipped(part.uri, min(room, 2048)) if _says(level) else ""}
    if isinstance(part.file_id, str):
        return {"type": "file", **head, "file_id": _name(part.file_id)}
    return {"type": "blob", **head, "content": ""}


def _definition(one: Definition, level: Content, room: int) -> dict[str, object]:
    head: dict[str, object] = {"type": _name(one.kind or "function"), "name": _name(one.name)}
    if not _says(level):
        return {**head, "description": ""}
    described = {**head, "description": clipped(one.description, room // 2) if isinstance(one.description, str) else ""}
    return described if one.parameters is None else {**described, "parameters": plain(one.parameters, room // 2)}
