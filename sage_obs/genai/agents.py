"""`@sage_obs.agent`: a function that is the agent, for services that no HTTP request calls."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, ParamSpec, TypeVar, cast

from sage_obs.conventions import Outcome
from sage_obs.genai.requests import Invocation, recorder
from sage_obs.genai.taxonomy import classify, outcome_of
from sage_obs.metrics.active import internal_error
from sage_obs.tracing.context import request_var

P = ParamSpec("P")
R = TypeVar("R")
_PROTOCOL: Final = "call"


def agent(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make each call of a function, sync or async, a request of the operation `name`; inside a request it is part of that one."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
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
    active = recorder()
    if active is None or request_var.get() is not None:
        yield
        return
    invocation = active.begin(name=name)
    try:
        yield
    except BaseException as exc:
        _finish(invocation, name, exc)
        raise
    else:
        _finish(invocation, name, None)
    finally:
        invocation.leave()


def _finish(invocation: Invocation, name: str, error: BaseException | None) -> None:
    error_type = invocation.request.error_type or (None if error is None else classify(error))
    outcome = Outcome.SUCCESS if error_type is None else outcome_of(error_type)
    try:
        invocation.finish(operation=name, protocol=_PROTOCOL, outcome=outcome, error_type=error_type, attributes={})
    except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
        internal_error("genai", exc)
