"""What of a call's content goes on its span, where anything of it does.

It fails closed: after an error nothing of the call is captured, and that there was one is counted and logged without its message,
which may quote the content.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sage_obs.errors import SageObsError
from sage_obs.genai.chat import Pieces, definitions_of, listed, message_of, parts_of
from sage_obs.genai.messages import Definition, Message, Part, Text, definitions_json, messages_json, parts_json, value_json
from sage_obs.metrics.active import internal_error
from sage_obs.privacy.content import Content, in_use, level_of
from sage_obs.semconv import INPUT_MESSAGES, OUTPUT_MESSAGES, SYSTEM_INSTRUCTIONS, TOOL_ARGUMENTS, TOOL_DEFINITIONS, TOOL_RESULT
from sage_obs.tracing.active import OpenSpan
from sage_obs.tracing.ambient import ambient_content

_COMPONENT: Final = "content"
_MOST_ITEMS: Final = 1000


class CaptureError(SageObsError):
    """Content could not be captured; the message says by which type of error, and nothing of the content."""


class Transcript:
    """The content of one call, as its attributes."""

    __slots__ = ("_attributes", "_following", "level")

    def __init__(self, level: Content) -> None:
        self.level = level
        self._attributes: dict[str, str] = {}
        self._following: Callable[[], Sequence[Message]] | None = None

    def asked(self, messages: Sequence[Message], *, system: Sequence[Part] = (), tools: Sequence[Definition] = ()) -> None:
        """What the model is sent."""
        if messages:
            self._attributes[INPUT_MESSAGES] = messages_json(messages, self.level)
        if system:
            self._attributes[SYSTEM_INSTRUCTIONS] = parts_json(system, self.level)
        if tools:
            self._attributes[TOOL_DEFINITIONS] = definitions_json(tools, self.level)

    def answered(self, messages: Sequence[Message]) -> None:
        """What the model has said, all of it."""
        self._following = None
        if messages:
            self._attributes[OUTPUT_MESSAGES] = messages_json(messages, self.level)

    def following(self, messages: Callable[[], Sequence[Message]]) -> None:
        """The answer comes in pieces; what it is in the end is asked for in the end."""
        self._following = messages

    def arguments(self, value: object) -> None:
        """What a tool is given."""
        if self.level is Content.FULL:
            self._attributes[TOOL_ARGUMENTS] = value_json(value)

    def result(self, value: object) -> None:
        """What a tool has returned."""
        if self.level is Content.FULL:
            self._attributes[TOOL_RESULT] = value_json(value)

    def attributes(self) -> Mapping[str, str]:
        """Everything, once the call is over."""
        if (following := self._following) is not None:
            self.answered(following())
        return self._attributes


class Capture:
    """A call's transcript behind a guard; nothing where nothing is to be captured, which costs no more than a look."""

    __slots__ = ("_transcript",)

    def __init__(self) -> None:
        self._transcript: Transcript | None = None

    def begin(self, span: OpenSpan | None, given: object) -> None:
        """The call has a span; `given` is the level its caller has asked for, None where the nearest around decides."""
        try:
            if span is not None and span.recorded and (level := level_for(given)) is not Content.OFF:
                self._transcript = Transcript(level)
        except Exception as exc:  # noqa: BLE001 - as said
            self._failed(exc)

    @property
    def on(self) -> bool:
        """Whether it is worth saying anything."""
        return self._transcript is not None

    def say(self, write: Callable[[Transcript], None]) -> None:
        """Have something written down."""
        if (transcript := self._transcript) is None:
            return
        try:
            write(transcript)
        except Exception as exc:  # noqa: BLE001 - the content is anybody's
            self._failed(exc)

    def attributes(self) -> Mapping[str, str]:
        """What goes on the span."""
        found: dict[str, str] = {}
        self.say(lambda transcript: found.update(transcript.attributes()))
        return found if self.on else {}

    def _failed(self, error: Exception) -> None:
        self._transcript = None
        failed(error)


def failed(error: Exception) -> None:
    """Count that content could not be captured, and say nothing of why but the error's type."""
    internal_error(_COMPONENT, CaptureError(f"Content could not be captured ({type(error).__name__})."))


def level_for(given: object) -> Content:
    """The level of a call: what its caller asks for, else what the contexts around it do, else the setting."""
    nearest = ambient_content() if given is None else given
    if nearest is None:
        return in_use()
    if (level := level_of(nearest)) is None:
        failed(ValueError())
        return Content.OFF
    return level


def named(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, object]:
    """The arguments of a call by their names; whose method it is, is none."""
    arguments = inspect.signature(function).bind(*args, **kwargs).arguments
    return {name: value for at, (name, value) in enumerate(arguments.items()) if at or name not in {"self", "cls"}}


def spoken(arguments: Mapping[str, object]) -> Sequence[Message]:
    """What an agent is asked: the text it is called with, or all its arguments."""
    texts = [value for value in arguments.values() if isinstance(value, str)]
    return (Message("user", (Text(texts[0] if len(texts) == len(arguments) == 1 else arguments),)),)


class Gathered:
    """What a generator has yielded: one text where every item is one, else the items."""

    __slots__ = ("_items", "_text")

    def __init__(self) -> None:
        self._text: Pieces | None = Pieces()
        self._items: list[object] = []

    def add(self, item: object) -> None:
        """One more item; there is room for so many."""
        if isinstance(item, str) and self._text is not None:
            self._text.add(item)
        else:
            self._text = None
        if len(self._items) < _MOST_ITEMS:
            self._items.append(item)

    @property
    def value(self) -> object:
        """All of it."""
        return self._items if self._text is None else str(self._text)


def messages_of(given: object) -> Sequence[Message]:
    """Messages as a caller may write them: a text, or messages with `role` and `content` as OpenAI has them, one or several."""
    if isinstance(given, str):
        return (Message("user", (Text(given),)),)
    return [Message("user", (Text(one),)) if isinstance(one, str) else message_of(one) for one in listed(given)]


def answers_of(given: object) -> Sequence[Message]:
    """The same of an answer; why it ended is what it says, else that it was done."""
    if isinstance(given, str):
        return (Message("assistant", (Text(given),), "stop"),)
    found = [message_of(one) for one in listed(given)]
    return [Message(one.role or "assistant", one.parts, one.finish_reason or "stop") for one in found]


def say_asked(transcript: Transcript, messages: object, system: object, tools: object) -> None:
    """Write down what a caller says it asks."""
    transcript.asked(messages_of(messages), system=parts_of(system), tools=definitions_of(tools))
