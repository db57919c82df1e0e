"""The seam to language models."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from sage_agent.messages import Turn
from sage_obs.conventions import ErrorType


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked; the answer is at most `max_tokens` tokens long. `system` and `turns` are what was said before."""

    text: str
    max_tokens: int
    system: str = ""
    turns: tuple[Turn, ...] = ()

    @property
    def length(self) -> int:
        """Characters, of all of it."""
        return len(self.text) + len(self.system) + sum(len(turn.text) for turn in self.turns)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens billed for one call. Input includes `cached_read` and `cached_write`, output includes `reasoning`."""

    input: int
    output: int
    cached_read: int = 0
    cached_write: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer; `usage` is None where the provider did not say. `finish` is why it ends, in the words of OpenAI's chat."""

    text: str
    usage: Usage | None
    finish: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed answer; some carry the usage so far, or why the answer ends, and no text."""

    text: str
    usage: Usage | None = None
    finish: str = ""


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
