"""The message: what callers send and what the agent answers, checked on the way in."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from typing import Any, Final

import orjson

from sage_agent.problems import invalid
from sage_agent.values import value

_ROLES: Final = ("user", "agent")


@value
class TextPart:
    """Words."""

    text: str


@value
class DataPart:
    """A JSON object, kept as its JSON text."""

    json: str


@value
class FilePart:
    """A file by its name; what is in it no provider here can read."""

    name: str


Part = TextPart | DataPart | FilePart


@value
class Turn:
    """One message of a conversation: who said it (`user` or `assistant`) and what."""

    role: str
    text: str


@value
class Message:
    """One checked message. Absent ids are empty strings, except `message_id`, which is generated."""

    message_id: str
    context_id: str
    task_id: str
    role: str
    parts: tuple[Part, ...]

    def prompt(self) -> str:
        """What the model reads: text and data parts, one a line. Raises Problem for a part no model here can read."""
        lines = []
        for part in self.parts:
            match part:
                case TextPart(text):
                    lines.append(text)
                case DataPart(json):
                    lines.append(json)
                case FilePart(name):
                    raise invalid(f"The file part {name!r} cannot be read by this agent; send text or data parts.")
        return "\n".join(lines)


def parse_message(body: bytes) -> Message:
    """Read a message from JSON, bare or as `{"message": …}`. Raises Problem (400) saying which part of it is wrong."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise invalid(f"The body is not valid JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}.") from None
    if not isinstance(document, dict):
        raise invalid("The body must be a JSON object: a message, or an object that holds one as `message`.")
    if "message" in document and "parts" not in document:
        document = document["message"]
        if not isinstance(document, dict):
            raise invalid("`message` must be a JSON object.")
    return _message(document)


def _message(document: Mapping[str, Any]) -> Message:
    if document.get("kind", "message") != "message":
        raise invalid('`kind` must be "message".')
    if document.get("role", "user") not in _ROLES:
        raise invalid('`role` must be "user" or "agent".')
    _check_extras(document)
    return Message(
        message_id=_text(document, "messageId") or new_message_id(),
        context_id=_text(document, "contextId"),
        task_id=_text(document, "taskId"),
        role=document.get("role", "user"),
        parts=_parts(document.get("parts")),
    )


def _check_extras(document: Mapping[str, Any]) -> None:
    if not isinstance(document.get("metadata"), dict | None):
        raise invalid("`metadata` must be a JSON object.")
    references = document.get("referenceTaskIds")
    if references is not None and not (isinstance(references, list) and all(isinstance(one, str) for one in references)):
        raise invalid("`referenceTaskIds` must be a list of strings.")


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise invalid(f"`{key}` must be a string.")
    return value


def _parts(parts: object) -> tuple[Part, ...]:
    if not isinstance(parts, list) or not parts:
        raise invalid('`parts` must be a list with at least one part, such as {"kind": "text", "text": "Hello"}.')
    return tuple([_part(part, index) for index, part in enumerate(parts)])


def _part(part: object, index: int) -> Part:
    if isinstance(part, dict) and part.get("kind") == "text" and isinstance(text := part.get("text"), str):
        return TextPart(text)
    where = f"parts[{index}]"
    if not isinstance(part, dict):
        raise invalid(f"`{where}` must be a JSON object.")
    match part.get("kind"), part.get(str(part.get("kind"))):
        case "data", dict(data):
            return DataPart(_dump(data, where))
        case "file", dict(file):
            return FilePart(str(file.get("name") or "")[:80])
        case "text" | "data" | "file" as kind, _:
            raise invalid(f"`{where}.{kind}` must be {'a string' if kind == 'text' else 'a JSON object'}.")
    raise invalid(f"`{where}.kind` must be one of text, file, data.")


def _dump(data: Mapping[str, Any], where: str) -> str:
    """JSON text; what can be read may still be nested too deeply to be written."""
    try:
        return orjson.dumps(data).decode()
    except orjson.JSONEncodeError:
        raise invalid(f"`{where}.data` is nested too deeply.") from None


@value
class Reply:
    """The agent's answer, or one piece of a streamed one. Token counts are None where the provider did not say."""

    message_id: str
    request: Message
    text: str
    model: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached: bool = False
    tools: tuple[str, ...] = ()

    def document(self) -> dict[str, object]:
        """The message as it goes over the wire."""
        document: dict[str, object] = {
            "kind": "message",
            "messageId": self.message_id,
            "role": "agent",
            "parts": [{"kind": "text", "text": self.text}],
            "metadata": self.metadata(),
        }
        if self.request.context_id:
            document["contextId"] = self.request.context_id
        if self.request.task_id:
            document["taskId"] = self.request.task_id
        return document

    def metadata(self) -> dict[str, object]:
        """Which model answered, what it counted, in tokens, and the tools it called; `cached` where the answer was given before."""
        counts = {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens}
        usage = {name: count for name, count in counts.items() if count is not None}
        metadata: dict[str, object] = {"model": self.model}
        if usage:
            metadata["usage"] = usage
        if self.cached:
            metadata["cached"] = True
        if self.tools:
            metadata["tools"] = list(self.tools)
        return metadata


_random: Final = random.Random()  # noqa: S311 - these are names, no secrets
os.register_at_fork(after_in_child=_random.seed)


def new_message_id() -> str:
    """A fresh identity for a message: a UUID, version 4, without the system call that `uuid.uuid4` makes for each."""
    digits = f"{_random.getrandbits(128) & ~(0xF << 76) & ~(0x3 << 62) | 0x4 << 76 | 0x2 << 62:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
