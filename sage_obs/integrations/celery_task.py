"""One run of a celery task as a request, in the process that runs it or, where that was lost, in its parent."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakKeyDictionary

from sage_obs.access import served
from sage_obs.conventions import ErrorType, Outcome
from sage_obs.genai.requests import Invocation, recorder
from sage_obs.genai.taxonomy import classify, outcome_of, outcome_of_raised
from sage_obs.health.board import board
from sage_obs.metrics.active import internal_error
from sage_obs.tracing.context import ambient_var, parse_traceparent, request_var, sane_request_id, under_way

_PROTOCOL: Final = "celery"
_METHOD: Final = "TASK"
_REVOKED: Final = "REVOKED"
_OUTCOMES: Final = {
    "SUCCESS": Outcome.SUCCESS,
    "IGNORED": Outcome.SUCCESS,
    "RETRY": Outcome.CANCELLED,
    "REJECTED": Outcome.REJECTED,
    _REVOKED: Outcome.CANCELLED,
}
"""What celery's states are in the contract's words; a failure is told by its exception.

Neither a retry nor a rejection is a failure of the service: the run that follows, here or elsewhere, is what counts. A task that raises
`Ignore` has done its work, and says only that its state is nobody's business.
"""
_KINDS: Final = {Outcome.CANCELLED: ErrorType.CANCELLED}
_LOST: Final = {
    "TimeLimitExceeded": ErrorType.TIMEOUT,
    "Terminated": ErrorType.CANCELLED,
    "WorkerLostError": ErrorType.INTERNAL,
    "SystemExit": ErrorType.INTERNAL,
}
"""What a worker's main process is told of a task whose process could not tell of it: a hard time limit, a termination, a death."""


class _Process:
    __slots__ = ("pooled", "runs")

    def __init__(self) -> None:
        self.pooled = False
        self.runs: WeakKeyDictionary[Any, Invocation] = WeakKeyDictionary()


_process: Final = _Process()
"""The runs under way, by celery's own object for each, and whether a parent hears of the end of this process."""


def in_pool(**_: object) -> None:
    """This process is a child of the prefork pool."""
    _process.pooled = True
    board().started()


def begin(task: Any = None, **_: object) -> None:
    """A task is about to run. Inside a request, which is what an eager task is in, it is part of that one."""
    try:
        if recorder() is None or under_way() is not None:
            return
        if (invocation := _begin(task.name, task.request)) is not None:
            _process.runs[task.request] = invocation
    except Exception as exc:  # noqa: BLE001 - the telemetry must not break the task
        internal_error(_PROTOCOL, exc)


def finish(task: Any = None, state: str | None = None, retval: Any = None, **_: object) -> None:
    """A task has run. Where its process is about to end, the parent counts it."""
    try:
        invocation = _process.runs.pop(task.request, None)
        if invocation is None:
            return
        if state is not None or not _process.pooled:
            error = retval if state is not None else sys.exc_info()[1]
            _end(invocation, task.name, state or type(error).__name__, *_judged(state or "", error, invocation.request.error_type))
        invocation.leave()
    except Exception as exc:  # noqa: BLE001 - the telemetry must not break the task
        internal_error(_PROTOCOL, exc)


def revoked(sender: Any = None, request: Any = None, terminated: bool = False, **_: object) -> None:  # noqa: FBT001, FBT002 - celery's signature
    """A task will not run. One that ran already is heard of as terminated."""
    if terminated:
        return
    try:
        if (invocation := _begin(sender.name, request)) is not None:
            _end(invocation, sender.name, _REVOKED, *_judged(_REVOKED, None, None))
            invocation.leave()
    except Exception as exc:  # noqa: BLE001 - the telemetry must not break the worker
        internal_error(_PROTOCOL, exc)


def in_parent(original: Callable[..., Any]) -> Callable[..., Any]:
    """The `on_failure` of a worker's requests, which counts the tasks whose process was lost."""

    @functools.wraps(original)
    def on_failure(self: Any, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        with _lost(self, exc_info):
            return original(self, exc_info, *args, **kwargs)

    return on_failure


@contextmanager
def _lost(request: Any, exc_info: Any) -> Iterator[None]:
    """Count a task whose process was lost; what celery logs of it inside has its ids."""
    invocation = None
    try:
        invocation = _count_lost(request, exc_info.exception)
    except Exception as exc:  # noqa: BLE001 - the telemetry must not break the worker
        internal_error(_PROTOCOL, exc)
    try:
        yield
    finally:
        if invocation is not None:
            invocation.leave()


def _count_lost(request: Any, raised: Any) -> Invocation | None:
    error = getattr(raised, "exc", raised)
    kind = next((_LOST[one.__name__] for one in type(error).__mro__ if one.__name__ in _LOST), None)
    if kind is None:
        return None
    if getattr(request, "_already_revoked", False) or getattr(request, "_already_cancelled", False):
        kind = ErrorType.CANCELLED
    invocation = _begin(request.task.name, request.request_dict)
    if invocation is not None:
        if request.time_start:
            invocation.began -= max(0.0, time.time() - request.time_start)
        _end(invocation, request.task.name, type(error).__name__, outcome_of_raised(kind), kind)
    return invocation


def _begin(name: str, said: Any) -> Invocation | None:
    """A request by what its message says: a mapping, or celery's object with the same names."""
    active = recorder()
    if active is None:
        return None
    _forget_the_finished()
    board().started()
    parent = parse_traceparent(str(_said(said, "traceparent") or ""))
    return active.begin(name=name, request_id=sane_request_id(str(_said(said, "id") or "")), parent=parent)


def _said(said: Any, name: str) -> object:
    """What a message says, in itself (celery's protocol 2) or in its headers."""
    headers = said.get("headers")
    return said.get(name) or (headers.get(name) if isinstance(headers, Mapping) else None)


def _forget_the_finished() -> None:
    """A thread keeps its context; what a failed task has left there ends with the next one."""
    request = request_var.get()
    if request is not None and request.finished:
        request_var.set(None)
        ambient_var.set(None)


def _judged(state: str, error: object, declared: ErrorType | None) -> tuple[Outcome, ErrorType | None]:
    """What a run amounts to that ended in this state, with this exception; `declared` is what `record_error` said."""
    outcome = _OUTCOMES.get(state)
    if outcome is None:
        kind = declared or (classify(error) if isinstance(error, BaseException) else ErrorType.INTERNAL)
        return outcome_of_raised(kind), kind
    if outcome is Outcome.SUCCESS:
        return (outcome, None) if declared is None else (outcome_of(declared), declared)
    cause = getattr(error, "exc", None)
    return outcome, classify(cause) if isinstance(cause, BaseException) else _KINDS.get(outcome)


def _end(invocation: Invocation, name: str, state: str, outcome: Outcome, kind: ErrorType | None) -> None:
    attributes = {"celery.state": state, "messaging.system": _PROTOCOL, "messaging.message.id": invocation.request.request_id}
    invocation.finish(operation=name, protocol=_PROTOCOL, outcome=outcome, error_type=kind, attributes=attributes)
    served(invocation.request, invocation.seconds, (_METHOD, name, state, name, outcome, kind))
