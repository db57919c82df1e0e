"""Answers that are given again: the exact same question of the same caller to the same model."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import orjson

import sage_obs
from sage_agent.callers import Caller
from sage_agent.flow.config import CacheConfig
from sage_agent.llm.providers.base import Completion, Prompt, Usage
from sage_agent.state.base import Cache, StateError
from sage_agent.state.keys import digest
from sage_agent.values import value
from sage_agent.within import Within
from sage_obs.conventions import CACHE_REQUESTS

_log = logging.getLogger("sage_agent")
_NAME: Final = "response"
_WHOLE: Final = frozenset({"", "stop"})
"""Why an answer ends that is kept: others are cut off, or are no answers."""


@value
class Answer:
    """A model and what it has answered; `cached` is whether it did so earlier, `tools` those that it called, in order."""

    model: str
    completion: Completion
    cached: bool = False
    tools: tuple[str, ...] = ()

    @property
    def lasting(self) -> bool:
        """Whether it may be given again: it is whole, and says nothing that tools have found out just now."""
        return self.completion.finish in _WHOLE and not self.tools


class Answers:
    """A cache of answers. Who asks while the same question is being asked waits for that answer. It belongs to one event loop."""

    def __init__(self, cache: Cache, config: CacheConfig, *, asked: str) -> None:
        """`asked` says who is asked and how: all that an answer depends on beside the prompt."""
        self._cache = cache
        self._config = config
        self._asked = asked
        self._under_way: dict[str, asyncio.Future[Answer | None]] = {}

    def key(self, prompt: Prompt, caller: Caller) -> str:
        """Under what an answer is kept."""
        whose = (caller.tenant, caller.id if self._config.scope == "user" else "")
        turns = [part for turn in prompt.turns for part in (turn.role, turn.text)]
        return digest(*whose, self._asked, str(prompt.max_tokens), prompt.system, str(len(turns)), *turns, prompt.text)

    async def find(self, key: str) -> Answer | None:
        """An earlier answer. Where the cache cannot be asked there is none."""
        try:
            found = await self._cache.get(key)
        except StateError as exc:
            _say("error")
            _log.warning("the response cache cannot be read", extra={"reason": exc.message})
            return None
        answer = None if found is None else _parse(found)
        _say("miss" if answer is None else "hit")
        return answer

    async def keep(self, key: str, answer: Answer) -> None:
        """Keep an answer that lasts."""
        if not answer.lasting or not answer.completion.text:
            return
        try:
            await self._cache.put(key, _dump(answer), seconds=self._config.ttl)
        except StateError as exc:
            _log.warning("an answer is not kept in the response cache", extra={"reason": exc.message})

    async def once(self, key: str, ask: Callable[[], Awaitable[Answer]], *, deadline: float) -> Answer:
        """The answer to a question: an earlier one, that of whoever is asking the same now, or a new one.

        Who waits for another's answer does so until `deadline`, and asks itself where the other got none.
        """
        if (answer := await self.find(key)) is not None:
            return answer
        if (other := self._under_way.get(key)) is not None:
            with Within(deadline):
                answer = await asyncio.shield(other)
            if answer is not None:
                return answer
        mine: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._under_way[key] = mine
        answer = None
        try:
            answer = await ask()
            await self.keep(key, answer)
        finally:
            if self._under_way.get(key) is mine:
                del self._under_way[key]
            lasting = answer is not None and answer.lasting
            mine.set_result(Answer(answer.model, answer.completion, cached=True) if answer is not None and lasting else None)
        return answer

    async def clear(self) -> None:
        """Forget every answer. Raises StateError."""
        await self._cache.clear()


def bypassed() -> None:
    """A question whose caller wants a new answer."""
    _say("bypass")


def _say(result: str) -> None:
    sage_obs.series(CACHE_REQUESTS, _NAME, result).add()


def expose() -> None:
    """Put what can be counted on /metrics before it happens."""
    for result in ("hit", "miss", "bypass", "error"):
        sage_obs.series(CACHE_REQUESTS, _NAME, result).add(0)


def _dump(answer: Answer) -> bytes:
    said = answer.completion
    usage = None if said.usage is None else [said.usage.input, said.usage.output]
    return orjson.dumps({"model": answer.model, "text": said.text, "usage": usage, "finish": said.finish})


def _parse(found: bytes) -> Answer | None:
    """What was kept; None where it was written by somebody who keeps it in another form."""
    try:
        document = orjson.loads(found)
        usage = document["usage"]
        completion = Completion(document["text"], None if usage is None else Usage(*usage), document["finish"])
        return Answer(document["model"], completion, cached=True)
    except (ValueError, KeyError, TypeError):
        return None
