"""The way of a request: a slot, then a worker, then the model, each by one deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

from sage_agent.callers import Caller
from sage_agent.flow.admission import Gate
from sage_agent.flow.calls import ModelCalls
from sage_agent.flow.config import ConcurrencyConfig
from sage_agent.llm.providers.base import Delta, Prompt, Usage
from sage_agent.messages import Message, Reply, new_message_id
from sage_agent.problems import Problem
from sage_obs.conventions import ErrorType


class Service:
    """Answers messages within bounds. `overhead` is scripted work outside the model call, in seconds."""

    def __init__(self, calls: ModelCalls, bounds: ConcurrencyConfig, *, max_tokens: int, overhead: float = 0.0) -> None:
        self._calls = calls
        self._slots = Gate(bounds.max_concurrent, queue=bounds.queue_size)
        self._workers = Gate(bounds.worker_pool_size)
        self._max_tokens = max_tokens
        self._overhead = overhead

    async def answer(self, message: Message, *, caller: Caller, deadline: float) -> Reply:
        """The whole answer by `deadline` (the event loop's time). Raises Problem."""
        del caller
        prompt = Prompt(message.prompt(), self._max_tokens)
        async with self._admitted(deadline):
            model, completion = await self._calls.complete(prompt, deadline=deadline)
        usage = completion.usage
        counts = (usage.input, usage.output) if usage else (None, None)
        return Reply(new_message_id(), message, completion.text, model, *counts)

    async def stream(self, message: Message, *, caller: Caller, deadline: float, emit: Callable[[Reply], Awaitable[None]]) -> Reply:
        """Hand every piece of the answer to `emit` by `deadline`, and return the answer without its text. Raises Problem."""
        del caller
        prompt = Prompt(message.prompt(), self._max_tokens)
        message_id = new_message_id()
        usage: Usage | None = None

        async def forward(model: str, delta: Delta) -> None:
            nonlocal usage
            usage = delta.usage or usage
            if delta.text:
                await emit(Reply(message_id, message, delta.text, model))

        async with self._admitted(deadline):
            model = await self._calls.stream(prompt, deadline=deadline, emit=forward)
        counts = (usage.input, usage.output) if usage else (None, None)
        return Reply(message_id, message, "", model, *counts)

    @asynccontextmanager
    async def _admitted(self, deadline: float) -> AsyncIterator[None]:
        """Hold a slot and a worker."""
        await self._enter(self._slots, deadline)
        try:
            if self._overhead:
                await asyncio.sleep(self._overhead)
            await self._enter(self._workers, deadline)
            try:
                yield
            finally:
                self._workers.release()
        finally:
            self._slots.release()

    async def _enter(self, gate: Gate, deadline: float) -> None:
        try:
            await gate.acquire(deadline=deadline)
        except TimeoutError:
            raise Problem(HTTPStatus.GATEWAY_TIMEOUT, ErrorType.TIMEOUT, "The request waited too long for its turn.") from None
