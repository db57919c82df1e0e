"""What is said in Anthropic's requests and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sage_obs.genai.chat import Pieces, listed
from sage_obs.genai.messages import Called, Definition, Media, Message, Other, Part, Returned, Text
from sage_obs.genai.transcript import Transcript
from sage_obs.genai.usage import part

_MOST_BLOCKS: Final = 1000


def asked(transcript: Transcript, body: Mapping[str, Any]) -> None:
    """The messages, the system's instructions and the tools of a request."""
    messages = [Message(part(one, "role"), _parts(part(one, "content"))) for one in listed(body.get("messages"))]
    tools = [
        Definition(part(one, "type"), part(one, "name"), part(one, "description"), part(one, "input_schema"))
        for one in listed(body.get("tools"))
    ]
    transcript.asked(messages, system=_parts(body.get("system")), tools=tools)


def answers_of(answer: object) -> Sequence[Message]:
    """The message that is the answer."""
    return (Message("assistant", _parts(part(answer, "content")), part(answer, "stop_reason") or "unknown"),)


def _parts(content: object) -> Sequence[Part]:
    return [_part(one) for one in listed(content)]


def _part(given: object) -> Part:  # noqa: PLR0911 - a table
    if isinstance(given, str):
        return Text(given)
    kind = part(given, "type")
    match kind:
        case "text":
            return Text(part(given, "text"))
        case "thinking":
            return Text(part(given, "thinking"), "reasoning")
        case "tool_use" | "server_tool_use":
            return Called(part(given, "id"), part(given, "name"), part(given, "input"))
        case "tool_result":
            return Returned(part(given, "tool_use_id"), _returned(part(given, "content")))
        case "image" | "document":
            source = part(given, "source")
            modality = "image" if kind == "image" else "file"
            return Media(modality, part(source, "media_type"), part(source, "url"), part(source, "file_id"))
        case _:
            return Other(kind)


def _returned(content: object) -> object:
    texts = [one if isinstance(one, str) else part(one, "text") for one in listed(content)]
    return "".join(text for text in texts if isinstance(text, str))


class _Block:
    """A block of content that comes in pieces."""

    __slots__ = ("begun", "text")

    def __init__(self, begun: object) -> None:
        self.begun = begun
        self.text = Pieces()

    def part(self) -> Part:
        """What it is so far."""
        match _part(self.begun):
            case Text(content, kind):
                return Text(f"{content or ''}{self.text}", kind)
            case Called(call_id, name, arguments):
                return Called(call_id, name, str(self.text) if self.text else arguments)
            case other:
                return other


class Events:
    """The answer that the events of a stream make."""

    __slots__ = ("_blocks", "_reason")

    def __init__(self) -> None:
        self._blocks: dict[object, _Block] = {}
        self._reason: object = None

    def add(self, item: object) -> None:
        """Read one event."""
        match part(item, "type"):
            case "content_block_start" if len(self._blocks) < _MOST_BLOCKS:
                self._blocks[part(item, "index")] = _Block(part(item, "content_block"))
            case "content_block_delta" if (block := self._blocks.get(part(item, "index"))) is not None:
                delta = part(item, "delta")
                block.text.add(part(delta, "text") or part(delta, "partial_json") or part(delta, "thinking"))
            case "message_delta":
                self._reason = part(item, "delta", "stop_reason") or self._reason

    def messages(self) -> Sequence[Message]:
        """The message so far."""
        parts = [block.part() for block in self._blocks.values()]
        return (Message("assistant", parts, self._reason or "unknown"),) if parts else ()
