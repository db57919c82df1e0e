"""The seam to language models."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from sage_agent.messages import Turn
from sage_agent.values import value
from sage_obs.conventions import ErrorType


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as a model knows it: what its arguments are is a JSON Schema of an object, as JSON text."""

    name: str
    description: str
    schema: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that a model asks for; `arguments` is JSON text, as it came.

    `signature` is what the provider wants to see again beside the call, and nobody else can read.
    """

    id: str
    name: str
    arguments: str
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of a model that called tools: what it said, the calls, and in their order what came of them."""

    text: str
    calls: tuple[ToolCall, ...]
    results: tuple[str, ...]

    def outcomes(self) -> Iterable[tuple[ToolCall, str]]:
        """Each call with what came of it."""
        return zip(self.calls, self.results, strict=True)

    @property
    def length(self) -> int:
        """Characters, of all of it."""
        return len(self.text) + sum(map(len, self.results)) + sum(len(call.arguments) for call in self.calls)


@value
class Prompt:
    """What a model is asked; the answer is at most `max_tokens` tokens long. `system` and `turns` are what was said before.

    `tools` are there for it to call, unless it has to answer now; `steps` are those it has taken since it was asked.
    """

    text: str
    max_tokens: int
    system: str = ""
    turns: tuple[Turn, ...] = ()
    tools: tuple[ToolSpec, ...] = ()
    steps: tuple[Step, ...] = ()
    answer_now: bool = False

    @property
    def length(self) -> int:
        """Characters, of all of it."""
        length = len(self.text) + len(self.system) + sum(len(turn.text) for turn in self.turns)
        if self.tools:
            length += sum(len(tool.description) + len(tool.schema) for tool in self.tools)
            length += sum(step.length for step in self.steps)
        return length


@value
class Usage:
    """Tokens billed for one call. Input includes `cached_read` and `cached_write`, output includes `reasoning`."""

    input: int
    output: int
    cached_read: int = 0
    cached_write: int = 0
    reasoning: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input + other.input,
            self.output + other.output,
            self.cached_read + other.cached_read,
            self.cached_write + other.cached_write,
            self.reasoning + other.reasoning,
        )


@value
class Completion:
    """A whole answer; `usage` is None where the provider did not say. `finish` is why it ends, in the words of OpenAI's chat.

    With `calls` it is no answer yet: the model wants to know what comes of them.
    """

    text: str
    usage: Usage | None
    finish: str = ""
    calls: tuple[ToolCall, ...] = ()


@value
class Delta:
    """A piece of a streamed answer; some carry the usage so far, or why the answer ends, or whole calls of tools, and no text."""

    text: str
    usage: Usage | None = None
    finish: str = ""
    calls: tuple[ToolCall, ...] = ()


class ProviderError(Exception):
    """A call to a model that failed, by the fixed taxonomy.

    `retry_after` is what the provider asked for, in whole seconds; `begun` is whether text of the answer had been handed on.
    """

    def __init__(self, error_type: ErrorType, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.message = message
        self.retry_after = retry_after
        self.begun = False


class OutOfTimeError(ProviderError):
    """The request's own deadline cut a call short, which says nothing of the provider."""

    def __init__(self) -> None:
        super().__init__(ErrorType.TIMEOUT, "the request's time was over before the provider answered")


class CrowdedError(ProviderError):
    """More calls wait than the provider bears at once; this one was not made."""

    def __init__(self) -> None:
        super().__init__(ErrorType.RATE_LIMITED, "the provider limits the rate, and too many calls wait for it")


class Provider(Protocol):
    """A language model. Both ways of asking raise ProviderError, and nothing else, for a call that failed."""

    @property
    def name(self) -> str:
        """What metrics know this provider as."""

    @property
    def model(self) -> str:
        """The model that is asked."""

    def complete(self, prompt: Prompt) -> Coroutine[Any, Any, Completion]:
        """The whole answer."""

    def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """The answer piece by piece."""

    async def close(self) -> None:
        """Let go of connections; the provider is not used afterwards."""
