"""Messages as OpenAI's chat has them, which most others have taken over; whole, and from the pieces of a stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sage_obs.genai.messages import Called, Definition, Media, Message, Other, Part, Returned, Text
from sage_obs.genai.usage import part

_MOST_CHARACTERS: Final = 1_000_000
"""Of one text that comes in pieces; what comes on top is not kept."""
_MOST_PIECES: Final = 1000
"""Of tool calls and choices of one answer."""
_TEXTS: Final = frozenset({"text", "input_text", "output_text", "refusal", "summary_text", "reasoning_text"})
_MEDIA: Final = {
    "image_url": ("image", ("image_url", "url")),
    "input_image": ("image", ("image_url",)),
    "input_audio": ("audio", ("input_audio", "url")),
    "file": ("file", ("file", "url")),
    "input_file": ("file", ("file_url",)),
}


def listed(given: object) -> Sequence[Any]:
    """A list of what may be a list, one thing or nothing."""
    if given is None:
        return ()
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping) else (given,)


def message_of(given: object) -> Message:
    """One message, the library's object or a mapping; a choice's, where the choice says why it ends."""
    role = part(given, "role")
    content = part(given, "content")
    if role in {"tool", "function"}:
        return Message("tool", (Returned(part(given, "tool_call_id") or part(given, "name"), _response(content)),))
    reasoning = part(given, "reasoning_content")
    thought = (Text(reasoning, "reasoning"),) if isinstance(reasoning, str) and reasoning else ()
    refusal = part(given, "refusal")
    refused = (Text(refusal),) if isinstance(refusal, str) and refusal else ()
    return Message(role, (*thought, *parts_of(content), *refused, *calls_of(given)))


def _response(content: object) -> object:
    texts = [part(one, "text") for one in listed(content)] if not isinstance(content, str) else [content]
    return "".join(text for text in texts if isinstance(text, str)) if texts else content


def parts_of(content: object) -> Sequence[Part]:
    """The parts of a message's content."""
    return [_part(one) for one in listed(content)]


def _part(given: object) -> Part:
    if isinstance(given, str):
        return Text(given)
    kind = part(given, "type")
    if kind in _TEXTS:
        return Text(part(given, "refusal") if kind == "refusal" else part(given, "text"))
    if isinstance(kind, str) and kind in _MEDIA:
        modality, names = _MEDIA[kind]
        return Media(modality, uri=part(given, *names), file_id=part(given, "file_id") or part(given, "file", "file_id"))
    return Other(kind)


def calls_of(message: object) -> Sequence[Part]:
    """The tools that a message calls."""
    calls = [_call(one) for one in listed(part(message, "tool_calls"))]
    old = part(message, "function_call")
    return calls if old is None else [*calls, Called(None, part(old, "name"), part(old, "arguments"))]


def _call(given: object) -> Called:
    function = part(given, "function")
    inside = part(given, "custom") if function is None else function
    return Called(part(given, "id"), part(inside, "name"), part(inside, "input" if function is None else "arguments"))


def definitions_of(tools: object) -> Sequence[Definition]:
    """The tools that a model may call, as chat and as the Responses API define them."""
    return [_definition(one) for one in listed(tools)]


def _definition(given: object) -> Definition:
    kind = part(given, "type")
    inside = part(given, str(kind)) if isinstance(kind, str) and part(given, kind) is not None else given
    return Definition(kind, part(inside, "name") or kind, part(inside, "description"), part(inside, "parameters"))


def answers_of(answer: object) -> Sequence[Message]:
    """The messages of an answer's choices, of a completion's texts too."""
    return [_choice(one) for one in listed(part(answer, "choices"))]


def _choice(choice: object) -> Message:
    message, reason = part(choice, "message"), part(choice, "finish_reason") or "unknown"
    if message is None:
        return Message("assistant", (Text(part(choice, "text")),), reason)
    found = message_of(message)
    return Message(found.role or "assistant", found.parts, reason)


class Pieces:
    """A text that comes in pieces."""

    __slots__ = ("_kept", "_room")

    def __init__(self) -> None:
        self._kept: list[str] = []
        self._room = _MOST_CHARACTERS

    def add(self, piece: object) -> None:
        """Keep a piece for as long as there is room; what is no text is none."""
        if isinstance(piece, str) and piece and self._room > 0:
            self._kept.append(piece[: self._room])
            self._room -= len(piece)

    def __str__(self) -> str:
        return "".join(self._kept)

    def __bool__(self) -> bool:
        return bool(self._kept)


class _Tool:
    """A tool call that comes in pieces."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id: object = None
        self.name: object = None
        self.arguments = Pieces()


class _Choice:
    """A choice that comes in pieces."""

    __slots__ = ("reason", "reasoning", "text", "tools")

    def __init__(self) -> None:
        self.text, self.reasoning = Pieces(), Pieces()
        self.tools: dict[object, _Tool] = {}
        self.reason: object = None

    def add(self, choice: object) -> None:
        """Read what a chunk says of it."""
        delta = part(choice, "delta")
        self.text.add(part(choice, "text") if delta is None else part(delta, "content") or part(delta, "refusal"))
        self.reasoning.add(part(delta, "reasoning_content"))
        for one in listed(part(delta, "tool_calls")):
            self._tool(part(one, "index"), one)
        self.reason = part(choice, "finish_reason") or self.reason

    def _tool(self, index: object, given: object) -> None:
        if index not in self.tools and len(self.tools) >= _MOST_PIECES:
            return
        tool = self.tools.setdefault(index, _Tool())
        tool.id, tool.name = part(given, "id") or tool.id, part(given, "function", "name") or tool.name
        tool.arguments.add(part(given, "function", "arguments"))

    def message(self) -> Message:
        """What it has said so far."""
        thought = (Text(str(self.reasoning), "reasoning"),) if self.reasoning else ()
        said = (Text(str(self.text)),) if self.text else ()
        calls = (Called(tool.id, tool.name, str(tool.arguments)) for tool in self.tools.values())
        return Message("assistant", (*thought, *said, *calls), self.reason or "unknown")


class Chunks:
    """The answer that the chunks of a stream make."""

    __slots__ = ("_choices",)

    def __init__(self) -> None:
        self._choices: dict[object, _Choice] = {}

    def add(self, choices: Iterable[object]) -> None:
        """Read the choices of one chunk."""
        for choice in choices:
            index = part(choice, "index")
            if index in self._choices or len(self._choices) < _MOST_PIECES:
                self._choices.setdefault(index, _Choice()).add(choice)

    def messages(self) -> Sequence[Message]:
        """The messages so far."""
        return [choice.message() for choice in self._choices.values()]
