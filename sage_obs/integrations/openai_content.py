"""What is said in OpenAI's requests and answers: chat completions and completions, and the Responses API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sage_obs.genai.chat import Pieces, definitions_of, listed, parts_of
from sage_obs.genai.messages import Called, Message, Other, Part, Returned, Text
from sage_obs.genai.transcript import Transcript, messages_of
from sage_obs.genai.usage import part


def chat_asked(transcript: Transcript, body: Mapping[str, Any]) -> None:
    """A chat's messages and tools, or the prompt of a completion."""
    messages = messages_of(body["messages"]) if "messages" in body else [_prompt(one) for one in listed(body.get("prompt"))]
    transcript.asked(messages, tools=definitions_of(body.get("tools")))


def _prompt(given: object) -> Message:
    return Message("user", (Text(given) if isinstance(given, str) else Other("tokens"),))


def responses_asked(transcript: Transcript, body: Mapping[str, Any]) -> None:
    """The input, instructions and tools of a request to the Responses API."""
    given = body.get("input")
    messages = messages_of(given) if isinstance(given, str) else [_item(one) for one in listed(given)]
    transcript.asked(messages, system=parts_of(body.get("instructions")), tools=definitions_of(body.get("tools")))


def responses_answers(answer: object) -> Sequence[Message]:
    """What an answer of the Responses API says: one message, whatever number of items it has."""
    items = [_item(one) for one in listed(part(answer, "output"))]
    parts = [found for item in items for found in item.parts]
    reason = part(answer, "incomplete_details", "reason") or part(answer, "status") or "unknown"
    called = any(isinstance(found, Called) for found in parts)
    return (Message("assistant", parts, "tool_call" if called and reason == "completed" else reason),) if parts else ()


def _item(given: object) -> Message:
    kind = part(given, "type") or "message"
    match kind:
        case "message":
            return Message(part(given, "role"), parts_of(part(given, "content")))
        case "function_call" | "custom_tool_call":
            arguments = part(given, "arguments") if kind == "function_call" else part(given, "input")
            return Message("assistant", (Called(part(given, "call_id"), part(given, "name"), arguments),))
        case "function_call_output" | "custom_tool_call_output":
            return Message("tool", (Returned(part(given, "call_id"), part(given, "output")),))
        case "reasoning":
            said: Sequence[Part] = [Text(part(one, "text"), "reasoning") for one in listed(part(given, "summary"))]
            return Message("assistant", said)
        case _:
            return Message("assistant", (Other(kind),))


class SoFar:
    """What a stream of the Responses API has said, for one that never says it whole."""

    __slots__ = ("_text",)

    def __init__(self) -> None:
        self._text = Pieces()

    def add(self, item: object) -> None:
        """Read one event."""
        if part(item, "type") in {"response.output_text.delta", "response.refusal.delta"}:
            self._text.add(part(item, "delta"))

    def messages(self) -> Sequence[Message]:
        """The message so far."""
        return (Message("assistant", (Text(str(self._text)),), "unknown"),) if self._text else ()
