"""Calls to the model: each attempt measured and bounded, and a memory of how the last requests went."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Final

import sage_obs
from sage_agent.llm.providers.base import Completion, Delta, OutOfTimeError, Prompt, Provider, ProviderError
from sage_agent.llm.retries import Retries
from sage_agent.problems import RETRY_SOON_SECONDS, Problem
from sage_obs.conventions import ErrorType

_DEGRADED_AFTER: Final = 5
"""Failures in a row, as a third of failing calls gives by chance once in 243 calls."""
_CALLERS_FAULT: Final = frozenset({ErrorType.CONTEXT_LENGTH, ErrorType.CONTENT_FILTER})


class ModelCalls:
    """Asks the model, at most `timeout` seconds an attempt, every attempt measured. Raises Problem where none succeeded."""

    def __init__(self, retries: Retries, *, timeout: float) -> None:
        self._retries = retries
        self._timeout = timeout
        self._failures = 0

    @property
    def failing(self) -> bool:
        """Whether the last requests failed without exception, or a provider is left alone; real traffic saw it, nothing is called."""
        return self._failures >= _DEGRADED_AFTER or self._retries.degraded

    async def complete(self, prompt: Prompt, *, deadline: float) -> tuple[str, Completion]:
        """The model that answered and its whole answer by `deadline`, in the event loop's time."""

        async def attempt(provider: Provider) -> tuple[str, Completion]:
            async with self._measured(provider, deadline) as call:
                completion = await provider.complete(prompt)
                _note(call, completion)
            return provider.model, completion

        with self._remembered():
            return await self._retries.run(attempt, deadline=deadline)

    async def stream(self, prompt: Prompt, *, deadline: float, emit: Callable[[str, Delta], Awaitable[None]]) -> str:
        """Hand the model and every piece of its answer to `emit`, the last one by `deadline`; returns the model."""

        async def attempt(provider: Provider) -> str:
            begun = False
            try:
                async with self._measured(provider, deadline) as call, aclosing(provider.stream(prompt)) as deltas:
                    async for delta in deltas:
                        if delta.text:
                            begun = True
                            call.first_token()
                        _note(call, delta)
                        await emit(provider.model, delta)
            except ProviderError as exc:
                exc.begun = begun
                raise
            return provider.model

        with self._remembered():
            return await self._retries.run(attempt, deadline=deadline)

    def expose(self) -> None:
        """Put what can be counted on /metrics, once there is one."""
        self._retries.expose()

    async def close(self) -> None:
        """Let go of the providers' connections."""
        await self._retries.close()

    @asynccontextmanager
    async def _measured(self, provider: Provider, deadline: float) -> AsyncIterator[sage_obs.LlmCall]:
        """One attempt. Raises ProviderError for one that took too long, too."""
        limit = min(deadline, asyncio.get_running_loop().time() + self._timeout)
        with sage_obs.llm_call(provider.name, provider.model) as call:
            try:
                async with asyncio.timeout_at(limit):
                    yield call
            except ProviderError as exc:
                call.fail(exc.error_type)
                raise
            except TimeoutError as exc:
                took_too_long = ProviderError(ErrorType.TIMEOUT, "the provider took too long")
                raise (took_too_long if limit < deadline else OutOfTimeError()) from exc

    @contextmanager
    def _remembered(self) -> Iterator[None]:
        """Remember how a request went, and turn its failure into what the caller is told."""
        try:
            yield
        except ProviderError as exc:
            self._failures += exc.error_type not in _CALLERS_FAULT
            raise as_problem(exc) from exc
        self._failures = 0


def _note(call: sage_obs.LlmCall, said: Completion | Delta) -> None:
    """Put on record what an answer says of itself."""
    if said.finish:
        call.response(finish_reasons=(said.finish,))
    if (usage := said.usage) is not None:
        call.usage(
            input=usage.input,
            output=usage.output,
            cached_read=usage.cached_read,
            cached_write=usage.cached_write,
            reasoning=usage.reasoning,
        )


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
