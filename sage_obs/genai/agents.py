"""`@sage_obs.agent`: a function that is the agent, for services that no HTTP request calls."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeVar, cast

from sage_obs.conventions import Outcome
from sage_obs.genai.messages import Message, Text
from sage_obs.genai.requests import Invocation, recorder
from sage_obs.genai.spans import open_internal
from sage_obs.genai.steps import in_steps
from sage_obs.genai.taxonomy import classify, outcome_of, outcome_of_raised
from sage_obs.genai.transcript import Capture, Gathered, named, spoken
from sage_obs.loops import seen_here
from sage_obs.metrics.active import internal_error
from sage_obs.semconv import AGENT_NAME, OPERATION
from sage_obs.tracing.active import OpenSpan
from sage_obs.tracing.context import under_way

P = ParamSpec("P")
R = TypeVar("R")
_PROTOCOL: Final = "call"
_OPERATION: Final = "invoke_agent"


def agent(name: str, *, content: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make each call of a function, sync or async, a request of the operation `name`; inside a request it is part of that one.

    Either way it has an `invoke_agent` span, under which the spans of its calls are. A generator, sync or async, is a request from its
    first step to its end; one that nobody iterates to the end was cancelled. `content` is how much of what it is asked and answers goes on
    the span; None leaves that to the context around and the setting.
    """

    def run() -> _Run:
        return _Run(name, content)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if (stepwise := in_steps(function, lambda: _Steps(run()))) is not None:
            return stepwise
        wrap = _asynchronous if inspect.iscoroutinefunction(function) else _synchronous
        return wrap(run, function)

    return decorate


def _synchronous(run: Callable[[], _Run], function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        with _request(run()) as under_way:
            under_way.given(function, args, kwargs)
            answer = function(*args, **kwargs)
            under_way.answered(answer)
            return answer

    return called


def _asynchronous(run: Callable[[], _Run], function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    async def called(*args: P.args, **kwargs: P.kwargs) -> Any:
        seen_here()
        with _request(run()) as under_way:
            under_way.given(function, args, kwargs)
            answer = await cast("Awaitable[Any]", function(*args, **kwargs))
            under_way.answered(answer)
            return answer

    return cast("Callable[P, R]", called)


@contextmanager
def _request(run: _Run) -> Iterator[_Run]:
    run.enter()
    try:
        yield run
    except BaseException as exc:
        run.finish(exc)
        raise
    else:
        run.finish(None)
    finally:
        run.leave()


class _Steps:
    """The run that a generator is, entered for each of its steps. Between them it waits for whoever iterates."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._gathered = Gathered()

    def given(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """What the generator is called with."""
        self._run.given(function, args, kwargs)

    def gave(self, item: object) -> None:
        """One item."""
        if self._run.captured:
            self._gathered.add(item)

    def __enter__(self) -> None:
        self._run.enter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._run.rest()
        else:
            if self._run.captured:
                self._run.answered(self._gathered.value)
            self._run.finish(None if isinstance(error, StopIteration | StopAsyncIteration) else error)
        self._run.leave()


class _Run:
    """An agent at work: a request of its own, or a span in the request it belongs to. Both are nothing while the layer is off."""

    __slots__ = ("_begun", "_capture", "_content", "_invocation", "_name", "_span")

    def __init__(self, name: str, content: str | None) -> None:
        self._name = name
        self._content = content
        self._capture = Capture()
        self._begun = False
        self._invocation: Invocation | None = None
        self._span: OpenSpan | None = None

    def enter(self) -> None:
        """Begin, or go on."""
        if not self._begun:
            self._begun = True
            self._begin()
        elif self._invocation is not None:
            self._invocation.request.waiting.end()
            self._invocation.enter()
        elif self._span is not None:
            self._span.enter()

    def _begin(self) -> None:
        active = recorder()
        if active is None:
            return
        if under_way() is not None:
            self._span = open_internal(self._span_name, self._attributes, attach=True)
            self._capture.begin(self._span, self._content)
            return
        try:
            self._invocation = active.begin(name=self._span_name, local=True)
            self._capture.begin(self._invocation.span, self._content)
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
            internal_error("genai", exc)

    @property
    def captured(self) -> bool:
        """Whether it is worth saying what is asked and answered."""
        return self._capture.on

    def given(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """What the function that is the agent is called with."""
        if self._capture.on:
            self._capture.say(lambda transcript: transcript.asked(spoken(named(function, args, kwargs))))

    def answered(self, answer: object) -> None:
        """What it answers."""
        if self._capture.on:
            self._capture.say(lambda transcript: transcript.answered((Message("assistant", (Text(answer),), "stop"),)))

    @property
    def _span_name(self) -> str:
        return f"{_OPERATION} {self._name}"

    @property
    def _attributes(self) -> dict[str, str]:
        return {OPERATION: _OPERATION, AGENT_NAME: self._name}

    def rest(self) -> None:
        """Whoever iterates has its turn."""
        if self._invocation is not None:
            self._invocation.request.waiting.begin()

    def leave(self) -> None:
        """The work is over or rests."""
        if self._invocation is not None:
            self._invocation.leave()
        elif self._span is not None:
            self._span.leave()

    def finish(self, error: BaseException | None) -> None:
        """It is over, failed where `error` came out of it."""
        try:
            if self._invocation is not None:
                self._finish_request(self._invocation, error)
            elif self._span is not None:
                kind = None if error is None else classify(error)
                failed = kind is not None and outcome_of_raised(kind) is Outcome.SERVER_ERROR
                self._span.end(name=self._span_name, attributes=self._capture.attributes(), error_type=str(kind) if failed else "")
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
            internal_error("genai", exc)

    def _finish_request(self, invocation: Invocation, error: BaseException | None) -> None:
        error_type = invocation.request.error_type or (None if error is None else classify(error))
        outcome = Outcome.SUCCESS if error_type is None else outcome_of(error_type) if error is None else outcome_of_raised(error_type)
        invocation.finish(
            operation=self._name,
            protocol=_PROTOCOL,
            outcome=outcome,
            error_type=error_type,
            attributes={**self._attributes, **self._capture.attributes()},
            span_name=self._span_name,
        )
