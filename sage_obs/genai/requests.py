"""One request, whatever brought it: measured from begin to finish, with its context around the work."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from sage_obs.conventions import ErrorType, Experience, Outcome
from sage_obs.metrics.requests import RequestMetrics
from sage_obs.tracing.active import Attributes, OpenSpan, tracing
from sage_obs.tracing.ambient import ambient
from sage_obs.tracing.context import Parent, Request, request_var

NOTHING: Final[Attributes] = {}
_FAILED: Final = Outcome.SERVER_ERROR
_SATISFIED: Final = Experience.SATISFIED
_CARRIED: Final = frozenset({Outcome.SUCCESS, Outcome.CANCELLED})
"""What says nothing of the requests inside: counted beside them it would thin out their errors."""
_TOLERATED: Final = 4
"""Apdex: what takes up to four times the objective is tolerated, what takes longer frustrates."""


def experience(outcome: Outcome, overhead: float, *, objective: float) -> Experience:
    """What the caller went through; `overhead` and `objective` in seconds (Apdex 1.1, section 4)."""
    if overhead <= objective and outcome is not _FAILED:
        return _SATISFIED
    if outcome is _FAILED or overhead > _TOLERATED * objective:
        return Experience.FRUSTRATED
    return Experience.TOLERATING


class Invocation:
    """A request under way. `first_byte` is when its stream began, in seconds from the start; None if it is not a stream."""

    __slots__ = ("_around", "_recorder", "_span", "began", "first_byte", "request", "seconds")

    def __init__(self, recorder: Recorder, request: Request, span: OpenSpan | None) -> None:
        self._recorder = recorder
        self._span = span
        self.request = request
        self.began = recorder.clock()
        self.first_byte: float | None = None
        self.seconds = 0.0
        self._around = request_var.get()
        request_var.set(request)

    @property
    def span(self) -> OpenSpan | None:
        """Its span, where it has one."""
        return self._span

    def streaming(self) -> None:
        """The first byte of a stream goes out."""
        if self.first_byte is None:
            self.first_byte = self._recorder.clock() - self.began

    def leave(self, *, failed: bool = False) -> None:
        """The work is over or rests: the request being served here is again the one around it, if any.

        Where it `failed` and there is none around, its ids stay until the next one begins: the server logs the traceback, and that line
        needs them most. Called from another context, such as the one a generator is closed in, nothing changes there.
        """
        if request_var.get() is self.request and (self._around is not None or not failed):
            request_var.set(self._around)
        if self._span is not None:
            self._span.leave()

    def enter(self) -> None:
        """The work goes on, here, after a `leave`."""
        self._around = request_var.get()
        request_var.set(self.request)
        if self._span is not None:
            self._span.enter()

    def finish(
        self,
        *,
        operation: str,
        protocol: str,
        outcome: Outcome,
        error_type: ErrorType | None,
        attributes: Attributes = NOTHING,
        span_name: str = "",
    ) -> None:
        """Count the request, once. `attributes` go on its span, which is named after the operation unless it has a name of its own."""
        request = self.request
        if request.finished:
            return
        request.finished = True
        self.seconds = self._recorder.clock() - self.began
        try:
            if self._span is not None:
                failed = error_type if outcome is Outcome.SERVER_ERROR else None
                self._end(self._span, span_name or operation, attributes, outcome, "" if failed is None else failed.value)
        finally:  # a span processor of the application's may raise, and the request would be in flight for ever
            self._recorder.record(self, operation, protocol, outcome, error_type)

    def _end(self, span: OpenSpan, name: str, attributes: Attributes, outcome: Outcome, error_type: str) -> None:
        """End its span, and before that settle the fate of a trace that depends on how its request ended: its span needs no room then."""
        if self.request.tentative:
            self.request.sampled = tracing().settle(self.request, span, outcome, seconds=self.seconds)
        if span.recorded:
            span.end(name=name, attributes={**attributes, **_identity()}, error_type=error_type)


def _identity() -> Attributes:
    return {f"sage.{key}": value for key, value in ambient().items()}


class Recorder:
    """Measures the requests of one agent; `objective` in seconds of overhead."""

    __slots__ = ("_metrics", "_objective", "clock")

    def __init__(self, metrics: RequestMetrics, *, objective: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._metrics = metrics
        self._objective = objective
        self.clock = clock

    def begin(self, *, name: str, request_id: str = "", parent: Parent | None = None, local: bool = False) -> Invocation:
        """A request begins here; what is called from here on belongs to it, until `leave`. A `local` one comes from this process."""
        request, span = tracing().begin(name=name, request_id=request_id, parent=parent, local=local)
        invocation = Invocation(self, request, span)
        self._metrics.in_flight.add()
        return invocation

    def record(self, invocation: Invocation, operation: str, protocol: str, outcome: Outcome, error_type: ErrorType | None) -> None:
        """Write what is known of a finished request."""
        metrics, request, seconds = self._metrics, invocation.request, invocation.seconds
        metrics.in_flight.add(-1.0)
        if request.carries and outcome in _CARRIED:
            return
        waited = request.waited()
        overhead = seconds - waited if waited < seconds else 0.0
        cells = metrics.operation(operation, protocol)
        cells.outcomes[outcome].add()
        if request.sampled:
            cells.duration.observe_traced(seconds, request.trace_id)
        else:
            cells.duration.observe(seconds)
        cells.overhead.observe(overhead)
        if invocation.first_byte is not None:
            metrics.first_byte(operation).observe(invocation.first_byte)
        if request.steps:
            metrics.steps.observe(request.steps)
        if overhead <= self._objective and outcome is not _FAILED:  # what `experience` would say, and nearly always does
            metrics.satisfied.add()
        else:
            metrics.experience[experience(outcome, overhead, objective=self._objective)].add()
        if error_type is not None:
            metrics.errors[error_type].add()


class _Active:
    __slots__ = ("recorder",)

    def __init__(self) -> None:
        self.recorder: Recorder | None = None


_active: Final = _Active()


def recorder() -> Recorder | None:
    """The recorder in use, None before instrument() and after uninstrument()."""
    return _active.recorder


def use(new: Recorder | None) -> None:
    """Record requests with this from now on."""
    _active.recorder = new
