"""A request in steps: the model calls tools until it answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Protocol

from sage_agent.flow.answers import Answer
from sage_agent.llm.providers.base import Prompt, Step, ToolCall, ToolSpec, Usage
from sage_agent.problems import Problem
from sage_obs.conventions import ErrorType


class Tools(Protocol):
    """What a model may call."""

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """What a model knows of them."""

    async def run(self, calls: Sequence[ToolCall], *, deadline: float) -> tuple[str, ...]:
        """What comes of each call by `deadline`, in the event loop's time."""


class Steps:
    """Asks a model at most `most` times; the last time it has to answer."""

    def __init__(self, tools: Tools, *, most: int) -> None:
        self._tools = tools
        self._most = most

    async def take(self, prompt: Prompt, ask: Callable[[Prompt], Awaitable[Answer]], *, deadline: float) -> Answer:
        """The answer by `deadline`, in the event loop's time, with the tokens of all steps. Raises Problem."""
        prompt = replace(prompt, tools=self._tools.specs, answer_now=self._most == 1)
        used: tuple[str, ...] = ()
        spent: Usage | None = Usage(0, 0)
        while True:
            answer = await ask(prompt)
            said = answer.completion
            spent = None if spent is None or said.usage is None else spent + said.usage
            if not said.calls:
                return replace(answer, completion=replace(said, usage=spent), tools=used)
            if prompt.answer_now:
                return _last_words(replace(answer, completion=replace(said, usage=spent, finish="length", calls=()), tools=used))
            results = await self._tools.run(said.calls, deadline=deadline)
            used = (*used, *(call.name for call in said.calls))
            steps = (*prompt.steps, Step(said.text, said.calls, results))
            prompt = replace(prompt, steps=steps, answer_now=len(steps) + 1 >= self._most)


def _last_words(answer: Answer) -> Answer:
    """What a model has said that went on calling tools when it had to answer. Raises Problem where that is nothing."""
    if not answer.completion.text:
        raise Problem(HTTPStatus.BAD_GATEWAY, ErrorType.SERVER_ERROR, "The model went on calling tools and did not answer.")
    return answer
