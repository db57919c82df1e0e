"""Calls to the model: one deadline, one measurement and one memory of how the last ones went."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from http import HTTPStatus
from typing import Final

import sage_obs
from sage_agent.problems import RETRY_SOON_SECONDS, Problem
from sage_agent.providers.base import Completion, Delta, Prompt, Provider, ProviderError, Usage
from sage_obs.conventions import ErrorType

_DEGRADED_AFTER: Final = 5
"""Failures in a row, as a third of failing calls gives by chance once in 243 calls."""
_CALLERS_FAULT: Final = frozenset({ErrorType.CONTEXT_LENGTH, ErrorType.CONTENT_FILTER})


class ModelCalls:
    """Asks a provider, at most `timeout` seconds a call, every attempt measured. Raises Problem for a call that failed."""

    def __init__(self, provider: Provider, *, timeout: float) -> None:
        self._provider = provider
        self._timeout = timeout
        self._failures = 0

    @property
    def model(self) -> str:
        """The model that is asked."""
        return self._provider.model

    @property
    def failing(self) -> bool:
        """Whether the last calls failed without exception, as real traffic saw it; nothing is called to find out."""
        return self._failures >= _DEGRADED_AFTER

    async def complete(self, prompt: Prompt, *, deadline: float) -> Completion:
        """The whole answer by `deadline`, in the event loop's time."""
        with sage_obs.llm_call(self._provider.name, self._provider.model) as call, self._judged(call):
            async with asyncio.timeout_at(self._limit(deadline)):
                completion = await self._provider.complete(prompt)
            _bill(call, completion.usage)
        return completion

    async def stream(self, prompt: Prompt, *, deadline: float, emit: Callable[[Delta], Awaitable[None]]) -> None:
        """Hand every piece of the answer to `emit`; the last one by `deadline`, in the event loop's time."""
        with sage_obs.llm_call(self._provider.name, self._provider.model) as call, self._judged(call):
            async with asyncio.timeout_at(self._limit(deadline)), aclosing(self._provider.stream(prompt)) as deltas:
                async for delta in deltas:
                    if delta.text:
                        call.first_token()
                    _bill(call, delta.usage)
                    await emit(delta)

    async def close(self) -> None:
        """Let go of the provider's connections."""
        await self._provider.close()

    def _limit(self, deadline: float) -> float:
        return min(deadline, asyncio.get_running_loop().time() + self._timeout)

    @contextmanager
    def _judged(self, call: sage_obs.LlmCall) -> Iterator[None]:
        """Remember how a call went, and turn its failure into what the caller is told."""
        try:
            yield
        except ProviderError as exc:
            self._failures += exc.error_type not in _CALLERS_FAULT
            call.fail(exc.error_type)
            raise as_problem(exc) from exc
        except TimeoutError as exc:
            self._failures += 1
            call.fail(ErrorType.TIMEOUT)
            raise as_problem(ProviderError(ErrorType.TIMEOUT, "the provider took too long")) from exc
        self._failures = 0


def _bill(call: sage_obs.LlmCall, usage: Usage | None) -> None:
    if usage is not None:
        call.usage(input=usage.input, output=usage.output)


def as_problem(error: ProviderError) -> Problem:
    """What a caller is told of a failed call.

    Only what the caller can change is the caller's error. A request the provider refuses for any other reason is a fault of this
    agent's configuration, such as a model that does not exist, and must count as the agent's failure.
    """
    message = f"{error.message[:1].upper()}{error.message[1:]}."
    match error.error_type:
        case ErrorType.RATE_LIMITED:
            wait = RETRY_SOON_SECONDS if error.retry_after is None else error.retry_after
            return Problem(HTTPStatus.TOO_MANY_REQUESTS, error.error_type, message, retry_after=wait)
        case ErrorType.UNAVAILABLE:
            wait = RETRY_SOON_SECONDS if error.retry_after is None else error.retry_after
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, error.error_type, message, retry_after=wait)
        case ErrorType.TIMEOUT:
            return Problem(HTTPStatus.GATEWAY_TIMEOUT, error.error_type, message)
        case ErrorType.CONTEXT_LENGTH | ErrorType.CONTENT_FILTER:
            return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, error.error_type, message)
        case ErrorType.AUTH:
            return Problem(HTTPStatus.BAD_GATEWAY, error.error_type, message)
        case _:
            return Problem(HTTPStatus.BAD_GATEWAY, ErrorType.SERVER_ERROR, message)
