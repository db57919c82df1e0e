"""What is said in Gemini's requests and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sage_obs.genai.chat import Pieces, listed
from sage_obs.genai.messages import Called, Definition, Media, Message, Other, Part, Returned, Text
from sage_obs.genai.transcript import Transcript
from sage_obs.genai.usage import part

_MOST_PARTS: Final = 1000


def asked(transcript: Transcript, given: Mapping[str, Any]) -> None:
    """The contents, the system's instruction and the tools of a request, in any of the forms the library takes."""
    config = given.get("config")
    system = [found for one in listed(part(config, "system_instruction")) for found in _content(one).parts]
    transcript.asked(_messages(given.get("contents")), system=system, tools=_definitions(part(config, "tools")))


def _messages(contents: object) -> Sequence[Message]:
    """Contents; texts and parts that follow each other are one message of the user's."""
    messages: list[Message] = []
    for one in listed(contents):
        if _is_content(one):
            messages.append(_content(one))
        else:
            before = messages.pop() if messages and messages[-1].role is None else Message(None, ())
            messages.append(Message(None, (*before.parts, _part(one))))
    return messages


def _is_content(given: object) -> bool:
    return not isinstance(given, str) and part(given, "parts") is not None


def _content(given: object) -> Message:
    if not _is_content(given):
        return Message(None, (_part(given),))
    return Message(part(given, "role") or "user", [_part(one) for one in listed(part(given, "parts"))])


def _part(given: object) -> Part:
    if isinstance(given, str):
        return Text(given)
    if isinstance(text := part(given, "text"), str):
        return Text(text, "reasoning" if part(given, "thought") is True else "text")
    if (call := part(given, "function_call")) is not None:
        return Called(part(call, "id"), part(call, "name"), part(call, "args"))
    if (returned := part(given, "function_response")) is not None:
        return Returned(part(returned, "id") or part(returned, "name"), part(returned, "response"))
    for name in ("file_data", "inline_data"):
        if (media := part(given, name)) is not None:
            mime_type = part(media, "mime_type")
            modality = mime_type.partition("/")[0] if isinstance(mime_type, str) else "file"
            return Media(modality if modality in {"image", "audio", "video"} else "file", mime_type, part(media, "file_uri"))
    return Other("part")


def _definitions(tools: object) -> Sequence[Definition]:
    """Declared functions; what the library makes of a Python function is known by its name alone."""
    found: list[Definition] = []
    for tool in listed(tools):
        if callable(tool) and isinstance(name := part(tool, "__name__"), str):
            found.append(Definition("function", name))
        for one in listed(part(tool, "function_declarations")):
            schema = part(one, "parameters_json_schema")
            parameters = part(one, "parameters") if schema is None else schema
            found.append(Definition("function", part(one, "name"), part(one, "description"), parameters))
    return found


def answers_of(answer: object) -> Sequence[Message]:
    """The messages of an answer's candidates."""
    return [
        Message("assistant", _content(part(candidate, "content")).parts, part(candidate, "finish_reason") or "unknown")
        for candidate in listed(part(answer, "candidates"))
    ]


class _Candidate:
    """A candidate that comes in pieces: texts of one kind that follow each other are one."""

    __slots__ = ("_kind", "_parts", "_text", "reason")

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._kind, self._text = "text", Pieces()
        self.reason: object = None

    def add(self, found: Part) -> None:
        """One more part."""
        if isinstance(found, Text):
            if found.kind != self._kind:
                self._close()
                self._kind = found.kind
            self._text.add(found.content)
        elif len(self._parts) < _MOST_PARTS:
            self._close()
            self._parts.append(found)

    def _close(self) -> None:
        if self._text:
            self._parts.append(Text(str(self._text), self._kind))
            self._text = Pieces()

    def message(self) -> Message:
        """What it is so far."""
        self._close()
        return Message("assistant", self._parts, self.reason or "unknown")


class Chunks:
    """The answer that the chunks of a stream make."""

    __slots__ = ("_candidates",)

    def __init__(self) -> None:
        self._candidates: dict[object, _Candidate] = {}

    def add(self, item: object) -> None:
        """Read one chunk."""
        for one in listed(part(item, "candidates")):
            candidate = self._candidates.setdefault(part(one, "index") or 0, _Candidate())
            for found in listed(part(one, "content", "parts")):
                candidate.add(_part(found))
            candidate.reason = part(one, "finish_reason") or candidate.reason

    def messages(self) -> Sequence[Message]:
        """The messages so far."""
        return [candidate.message() for candidate in self._candidates.values()]
