"""What a call used, in one shape for every provider. The functions are pure and take whatever the provider sent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self, TypeGuard

_MOST: Final = 2**53
"""Tokens; more is no count of tokens, and a float can no longer add one to it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. `input` includes what was read from and written to a cache, `output` includes reasoning."""

    input: int = 0
    output: int = 0
    cached_read: int = 0
    cached_write: int = 0
    reasoning: int = 0

    @classmethod
    def of(cls, *, input: object, output: object, cached_read: object = 0, cached_write: object = 0, reasoning: object = 0) -> Self:  # noqa: A002 - the conventions' word
        """The usage of these numbers: what is no number of tokens is 0, and no part is more than its whole."""
        if not (cached_read or cached_write or reasoning) and plain(input) and plain(output):
            return cls(input, output)  # as nearly every call says it
        whole, answered = tokens(input), tokens(output)
        read = min(tokens(cached_read), whole)
        return cls(whole, answered, read, min(tokens(cached_write), whole - read), min(tokens(reasoning), answered))

    def grown(self, later: Usage) -> Usage:
        """This and what a stream said later: its numbers are totals so far, and it repeats only some of them."""
        return Usage.of(
            input=max(self.input, later.input),
            output=max(self.output, later.output),
            cached_read=max(self.cached_read, later.cached_read),
            cached_write=max(self.cached_write, later.cached_write),
            reasoning=max(self.reasoning, later.reasoning),
        )

    def plus(self, more: Usage) -> Usage:
        """This and what comes on top of it."""
        return Usage.of(
            input=self.input + more.input,
            output=self.output + more.output,
            cached_read=self.cached_read + more.cached_read,
            cached_write=self.cached_write + more.cached_write,
            reasoning=self.reasoning + more.reasoning,
        )


NOTHING: Final = Usage()


def plain(value: object) -> TypeGuard[int]:
    """Whether a value is a number of tokens as it stands."""
    return type(value) is int and 0 <= value <= _MOST


def tokens(value: object) -> int:
    """A number of tokens; 0 for what is none, such as None, text, a negative number or NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float) or (isinstance(value, float) and not math.isfinite(value)):
        return 0
    return min(max(0, int(value)), _MOST)


def part(holder: object, *names: str) -> object:
    """What stands under these names, one inside the other, in an object or a mapping; None where something is missing."""
    for name in names:
        try:
            holder = holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
        except Exception:  # noqa: BLE001 - the object is the library's or the user's
            return None
    return holder


def of_openai(sent: object) -> Usage:
    """From `usage` of chat completions, embeddings and responses; both names of each number are known. Input includes the cache."""
    asked = "prompt_tokens" if part(sent, "prompt_tokens") is not None else "input_tokens"
    answered = "completion_tokens" if part(sent, "completion_tokens") is not None else "output_tokens"
    return Usage.of(
        input=part(sent, asked),
        output=part(sent, answered),
        cached_read=part(sent, f"{asked}_details", "cached_tokens"),
        cached_write=part(sent, f"{asked}_details", "cache_write_tokens"),
        reasoning=part(sent, f"{answered}_details", "reasoning_tokens"),
    )


def of_anthropic(sent: object) -> Usage:
    """From `usage` of a message, whose `input_tokens` leaves out what was read from and written to the cache."""
    read, written = tokens(part(sent, "cache_read_input_tokens")), tokens(part(sent, "cache_creation_input_tokens"))
    return Usage.of(
        input=tokens(part(sent, "input_tokens")) + read + written,
        output=part(sent, "output_tokens"),
        cached_read=read,
        cached_write=written,
        reasoning=part(sent, "output_tokens_details", "thinking_tokens"),
    )


def of_google(sent: object) -> Usage:
    """From `usage_metadata` of a Gemini answer, whose prompt leaves out tool results and whose candidates leave out thoughts."""
    thoughts = tokens(part(sent, "thoughts_token_count"))
    return Usage.of(
        input=tokens(part(sent, "prompt_token_count")) + tokens(part(sent, "tool_use_prompt_token_count")),
        output=tokens(part(sent, "candidates_token_count")) + thoughts,
        cached_read=part(sent, "cached_content_token_count"),
        reasoning=thoughts,
    )
