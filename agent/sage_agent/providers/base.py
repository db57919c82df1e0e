"""The seam to language models."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from sage_obs.conventions import ErrorType


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked; the answer is at most `max_tokens` tokens long."""

    text: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens billed for one call."""

    input: int
    output: int


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer; `usage` is None where the provider did not say."""

    text: str
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed answer; the last one may carry the usage and no text."""

    text: str
    usage: Usage | None = None


class ProviderError(Exception):
    """A call to a model that failed, by the fixed taxonomy. `retry_after` is what the provider asked for, in whole seconds."""

    def __init__(self, error_type: ErrorType, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.message = message
        self.retry_after = retry_after


class Provider(Protocol):
    """A language model. Both ways of asking raise ProviderError, and nothing else, for a call that failed."""

    @property
    def name(self) -> str:
        """What metrics know this provider as."""

    @property
    def model(self) -> str:
        """The model that is asked."""

    async def complete(self, prompt: Prompt) -> Completion:
        """The whole answer."""

    def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """The answer piece by piece."""

    async def close(self) -> None:
        """Let go of connections; the provider is not used afterwards."""
