"""`@sage_obs.agent`: a function that is the agent, for services that no HTTP request calls."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeVar, cast

from sage_obs.conventions import Outcome
from sage_obs.genai.requests import Invocation, recorder
from sage_obs.genai.steps import in_steps
from sage_obs.genai.taxonomy import classify, outcome_of, outcome_of_raised
from sage_obs.metrics.active import internal_error
from sage_obs.tracing.context import under_way

P = ParamSpec("P")
R = TypeVar("R")
_PROTOCOL: Final = "call"


def agent(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make each call of a function, sync or async, a request of the operation `name`; inside a request it is part of that one.

    A generator, sync or async, is a request from its first step to its end; one that nobody iterates to the end was cancelled.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if (stepwise := in_steps(function, lambda: _Steps(name))) is not None:
            return stepwise
        wrap = _asynchronous if inspect.iscoroutinefunction(function) else _synchronous
        return wrap(name, function)

    return decorate


def _synchronous(name: str, function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        with _request(name):
            return function(*args, **kwargs)

    return called


def _asynchronous(name: str, function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    async def called(*args: P.args, **kwargs: P.kwargs) -> Any:
        with _request(name):
            return await cast("Awaitable[Any]", function(*args, **kwargs))

    return cast("Callable[P, R]", called)


@contextmanager
def _request(name: str) -> Iterator[None]:
    invocation = _begin(name)
    if invocation is None:
        yield
        return
    try:
        yield
    except BaseException as exc:
        _finish(invocation, name, exc)
        raise
    else:
        _finish(invocation, name, None)
    finally:
        invocation.leave()


class _Steps:
    """The request that a generator is, entered for each of its steps. Between them it waits for whoever iterates."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._begun = False
        self._invocation: Invocation | None = None

    def __enter__(self) -> None:
        if not self._begun:
            self._begun = True
            self._invocation = _begin(self._name)
        elif self._invocation is not None:
            self._invocation.request.waiting.end()
            self._invocation.enter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._invocation is None:
            return
        if error is None:
            self._invocation.request.waiting.begin()
        else:
            _finish(self._invocation, self._name, None if isinstance(error, StopIteration | StopAsyncIteration) else error)
        self._invocation.leave()


def _begin(name: str) -> Invocation | None:
    """A request of its own; None while the layer is off or where another one is under way, which it then belongs to."""
    active = recorder()
    if active is None or under_way() is not None:
        return None
    try:
        return active.begin(name=name)
    except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
        internal_error("genai", exc)
        return None


def _finish(invocation: Invocation, name: str, error: BaseException | None) -> None:
    error_type = invocation.request.error_type or (None if error is None else classify(error))
    outcome = Outcome.SUCCESS if error_type is None else outcome_of(error_type) if error is None else outcome_of_raised(error_type)
    try:
        invocation.finish(operation=name, protocol=_PROTOCOL, outcome=outcome, error_type=error_type)
    except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
        internal_error("genai", exc)
