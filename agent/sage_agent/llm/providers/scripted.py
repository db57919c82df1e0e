"""The embedded provider: answers, latency, token counts and failures by script, the same in every run."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

from sage_agent.llm.config import ScriptedConfig
from sage_agent.llm.providers.base import Completion, Delta, Prompt, ProviderError, ToolCall, Usage
from sage_obs.conventions import ErrorType

_OPENINGS: Final = ("Noted", "Understood", "Here is what I found", "Certainly", "In short")
_CLOSINGS: Final = ("Is there more?", "That is all.", "Ask me for the details.", "I am done.")
_CALL: Final = re.compile(r"^call ([A-Za-z0-9_-]{1,64}) (\{.*\})$", re.ASCII | re.MULTILINE)
_ROUNDING: Final = 1e-9
"""Keeps n times the share from falling short of a whole number it should reach."""


class Spread:
    """Says yes to a share of its calls, spread evenly: of the first n calls, floor(n * share) were yes."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._calls = 0

    def __call__(self) -> bool:
        """Whether this call is one of the share."""
        before = self._due()
        self._calls += 1
        return self._due() > before

    def _due(self) -> int:
        return int(self._calls * self._share + _ROUNDING)


class ScriptedProvider:
    """Implements `Provider` without a model. An answer depends on the seed and the prompt only.

    A line `call NAME {"argument": …}` in the prompt makes it call that tool, where it has any, and answer with what came of it.
    """

    name: Final = "scripted"

    def __init__(self, config: ScriptedConfig, *, model: str, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self.model = model
        self._config = config
        self._sleep = sleep
        self._fails = Spread(config.error_rate)

    async def complete(self, prompt: Prompt) -> Completion:
        """Answer after the scripted latency, or fail if it is this call's turn."""
        fails = self._fails()
        await self._wait(self._config.latency)
        if fails:
            raise _failure()
        if calls := _calls(prompt):
            return Completion("", Usage(_tokens(prompt.text), len(calls)), "tool_calls", calls)
        asked = _tokens(prompt.text)
        words = self._words(prompt, asked)
        return Completion(" ".join(words), Usage(asked, len(words)), "stop")

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """Answer word by word, the scripted latency spread over the words; a failing call breaks off half-way."""
        asked, calls = _tokens(prompt.text), _calls(prompt)
        if calls:
            yield Delta("", Usage(asked, len(calls)), "tool_calls", calls)
            return
        fails, words = self._fails(), self._words(prompt, asked)
        end = len(words) // 2 if fails else len(words)
        for index, word in enumerate(words[:end]):
            await self._wait(self._config.latency / len(words))
            yield Delta(word if index == 0 else f" {word}")
        if fails:
            raise _failure()
        yield Delta("", Usage(asked, len(words)), "stop")

    async def close(self) -> None:
        """There is nothing to let go of."""

    async def _wait(self, seconds: float) -> None:
        if seconds > 0:
            await self._sleep(seconds)

    def _words(self, prompt: Prompt, asked: int) -> list[str]:
        number = zlib.crc32(prompt.text.encode(), self._config.seed)
        opening, closing = _OPENINGS[number % len(_OPENINGS)], _CLOSINGS[number // len(_OPENINGS) % len(_CLOSINGS)]
        found = "".join(f" {call.name} said {result}." for step in prompt.steps for call, result in step.outcomes())
        return f"{opening}: you sent {asked} words.{found} {closing}".split(" ")[: prompt.max_tokens]


def _calls(prompt: Prompt) -> tuple[ToolCall, ...]:
    """The tools that a prompt wants called, once."""
    if not prompt.tools or prompt.steps or prompt.answer_now:
        return ()
    return tuple(ToolCall(f"call_{number}", *found.groups()) for number, found in enumerate(_CALL.finditer(prompt.text), 1))


def _tokens(text: str) -> int:
    """A word counts as a token, an empty prompt as one."""
    return max(1, len(text.split()))


def _failure() -> ProviderError:
    return ProviderError(ErrorType.SERVER_ERROR, "the scripted provider failed on purpose")
