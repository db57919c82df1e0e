"""Calls to the model: each attempt measured and bounded, and a memory of how the last requests went."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from http import HTTPStatus
from typing import Final

import sage_obs
from sage_agent.llm.bill import Bill
from sage_agent.llm.config import LlmConfig
from sage_agent.llm.estimates import tokens_of
from sage_agent.llm.providers.base import Completion, Delta, OutOfTimeError, Prompt, Provider, ProviderError, Usage
from sage_agent.llm.retries import Retries
from sage_agent.llm.targets import renew_targets
from sage_agent.problems import RETRY_SOON_SECONDS, Problem
from sage_agent.within import Within, by, running_loop
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

    def renew(self, llm: LlmConfig) -> None:
        """Ask with the keys that the configuration has by now."""
        renew_targets(self._retries.targets, llm)

    async def complete(self, prompt: Prompt, *, deadline: float, bill: Bill | None = None) -> tuple[str, Completion]:
        """The model that answered and its whole answer by `deadline`, in the event loop's time; what it cost is added to `bill`."""

        async def attempt(provider: Provider) -> tuple[str, Completion]:
            limit = min(deadline, running_loop().time() + self._timeout)
            with sage_obs.llm_call(provider.name, provider.model) as call:
                try:
                    completion = await by(limit, provider.complete(prompt))
                except BaseException as exc:
                    if bill is not None and not isinstance(exc, ProviderError):
                        bill.unknown()
                    raise _as_provider_error(exc, call, late=limit < deadline) from exc
                _note(call, completion)
                if bill is not None:
                    bill.add(provider.name, provider.model, completion.usage or _estimate(prompt, completion.text))
            return provider.model, completion

        try:
            result = await self._retries.run(attempt, deadline=deadline)
        except ProviderError as exc:
            raise self._remember(exc) from exc
        self._failures = 0
        return result

    async def stream(
        self, prompt: Prompt, *, deadline: float, emit: Callable[[str, Delta], Awaitable[None]], bill: Bill | None = None
    ) -> str:
        """Hand the model and every piece of its answer to `emit`, the last one by `deadline`; returns the model.

        Of a stream that is cut short here what had come is billed, as the provider counted it or as it is estimated; of one that the
        provider broke off, what it had counted.
        """

        async def attempt(provider: Provider) -> str:
            limit = min(deadline, running_loop().time() + self._timeout)
            heard = _Heard(prompt)
            with sage_obs.llm_call(provider.name, provider.model) as call:
                try:
                    with Within(limit):
                        await _hear(provider, prompt, call, heard, emit)
                except BaseException as exc:
                    if heard.usage is not None or (heard.begun and not isinstance(exc, ProviderError)):
                        heard.settle(call, provider, bill)
                    raise _as_provider_error(exc, call, late=limit < deadline, begun=bool(heard.text)) from exc
                heard.settle(call, provider, bill)
            return provider.model

        try:
            model = await self._retries.run(attempt, deadline=deadline)
        except ProviderError as exc:
            raise self._remember(exc) from exc
        self._failures = 0
        return model

    def expose(self) -> None:
        """Put what can be counted on /metrics, once there is one."""
        self._retries.expose()

    async def close(self) -> None:
        """Let go of the providers' connections."""
        await self._retries.close()

    def _remember(self, error: ProviderError) -> Problem:
        """Remember that a request failed; what its caller is told."""
        self._failures += error.error_type not in _CALLERS_FAULT
        return as_problem(error)


class _Heard:
    """What has come of a streamed answer."""

    __slots__ = ("_prompt", "begun", "text", "usage")

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        self.begun = False
        self.text = 0
        self.usage: Usage | None = None

    def add(self, delta: Delta) -> None:
        """One more piece."""
        self.begun = True
        self.text += len(delta.text)
        self.usage = delta.usage or self.usage

    def settle(self, call: sage_obs.LlmCall, provider: Provider, bill: Bill | None) -> None:
        """Put on record what it used: at least what was heard, whatever the provider has said so far."""
        said = self.usage or Usage(tokens_of(self._prompt.length), 0)
        used = replace(said, output=max(said.output, tokens_of(self.text) if self.usage is None or not said.output else 0))
        _note(call, Delta("", used))
        if bill is not None:
            bill.add(provider.name, provider.model, used)


async def _hear(
    provider: Provider, prompt: Prompt, call: sage_obs.LlmCall, heard: _Heard, emit: Callable[[str, Delta], Awaitable[None]]
) -> None:
    """Hand on every piece of an answer."""
    async with aclosing(provider.stream(prompt)) as deltas:
        async for delta in deltas:
            if delta.text:
                call.first_token()
            heard.add(delta)
            _note(call, delta)
            await emit(provider.model, delta)


def _estimate(prompt: Prompt, text: str) -> Usage:
    return Usage(tokens_of(prompt.length), tokens_of(len(text)))


def _as_provider_error(error: BaseException, call: sage_obs.LlmCall, *, late: bool, begun: bool = False) -> BaseException:
    """A failed attempt as what it is to those who might make another; `late` is whether its own time was over, not the request's."""
    if isinstance(error, TimeoutError):
        error = ProviderError(ErrorType.TIMEOUT, "the provider took too long") if late else OutOfTimeError()
    if isinstance(error, ProviderError):
        call.fail(error.error_type)
        error.begun = begun
    return error


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
