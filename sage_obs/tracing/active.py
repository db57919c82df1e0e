"""The tracing in use: the sampling decision, and the spans where there is somewhere to send them.

The decision comes first and costs a random number; a request that is not sampled never builds a span.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from sage_obs.conventions import Outcome
from sage_obs.tracing.context import (
    Parent,
    Request,
    chance,
    format_traceparent,
    new_ids,
    request_var,
)
from sage_obs.tracing.tail import Policy

Attributes = Mapping[str, str | int | float | bool | tuple[str, ...]]


class OpenSpan(Protocol):
    """A span that has begun."""

    @property
    def recorded(self) -> bool:
        """Whether anybody will see it: what is said of one that is not recorded is lost."""

    @property
    def ids(self) -> tuple[str, str, bool]:
        """Trace id, span id, and whether it is recorded."""

    def end(self, *, name: str, attributes: Attributes, error_type: str) -> None:
        """Finish it; `error_type` is "" for success."""

    def enter(self) -> None:
        """Make it the current span here, after a `leave`."""

    def leave(self) -> None:
        """It is no longer the current span here, where it was made so."""


class SpanSource(Protocol):
    """Something that makes spans."""

    def server(self, *, name: str, ids: tuple[str, str], parent: Parent | None, local: bool = False) -> OpenSpan:
        """A span for a request, a server's unless it is `local`, which is the current one from here on.

        `ids` are the trace id and the span id it gets, where its source leaves that to others.
        """

    def tentative(self, *, name: str, ids: tuple[str, str], parent: Parent | None, local: bool = False) -> OpenSpan | None:
        """The same for a request that is not sampled, recorded until its fate is settled; None where there are no such spans."""

    def settle(self, span: OpenSpan, *, keep: bool) -> None:
        """The request of a tentative span is over, and its trace is worth keeping or not."""

    def unrecorded(self, trace_id: str, span_id: str) -> OpenSpan:
        """One that carries the context of a request, here and to what it calls, and records nothing."""

    def client(self, *, name: str, attributes: Attributes) -> OpenSpan:
        """A client span under the current one."""

    def internal(self, *, name: str, attributes: Attributes, attach: bool) -> OpenSpan:
        """An internal span under the current one; attached, it is the current one until it is left."""

    def current(self) -> tuple[str, str, bool] | None:
        """The ids of the span that is current here, None where there is none."""


class Tracing:
    """Sampling ratio (0 to 1), propagation and span source of an instrumented process."""

    __slots__ = ("_propagate", "_ratio", "spans", "tail")

    def __init__(self, *, ratio: float = 0.0, propagate: bool = False, spans: SpanSource | None = None, tail: Policy | None = None) -> None:
        self.tail = tail
        self._ratio = ratio
        self._propagate = propagate
        self.spans = spans

    @property
    def ratio(self) -> float:
        """The share of new traces that are recorded."""
        return self._ratio

    def tune(self, ratio: float) -> None:
        """Record this share of new traces from now on."""
        self._ratio = ratio

    def sampled(self, parent: Parent | None) -> bool:
        """Whether to record: as the caller decided, else by the ratio."""
        return chance() < self._ratio if parent is None else parent.sampled

    def begin(self, *, name: str, request_id: str, parent: Parent | None, local: bool = False) -> tuple[Request, OpenSpan | None]:
        """The context of a new request, and its span where spans are made. A `request_id` of "" is given one.

        Without a `parent`, a `local` one belongs to the span that is current here, such as that of a consumer the layer knows nothing of.
        """
        trace_id, span_id, new_request_id = new_ids()
        if local and parent is None:
            parent = self._around()
        sampled, span, spans = chance() < self._ratio if parent is None else parent.sampled, None, self.spans
        if parent is not None:
            trace_id = parent.trace_id
        if spans is None:
            pass
        elif sampled:
            span = spans.server(name=name, ids=(trace_id, span_id), parent=parent, local=local)
            trace_id, span_id, sampled = span.ids
        elif self.tail is None:
            span = spans.unrecorded(trace_id, span_id)
        else:
            return self._tentative(
                spans, name, request_id or new_request_id, (trace_id, span_id), parent, local=local, named=bool(request_id)
            )
        if request_id:
            return Request(request_id, trace_id, span_id, sampled=sampled, named=True), span
        return Request(new_request_id, trace_id, span_id, sampled=sampled), span

    def _around(self) -> Parent | None:
        """The span that is current here; none in a task that has outlived its request, which may be the first of many that it serves."""
        ids = None if self.spans is None or request_var.get() is not None else self.spans.current()
        return None if ids is None else Parent(*ids)

    def _tentative(
        self, spans: SpanSource, name: str, request_id: str, ids: tuple[str, str], parent: Parent | None, *, local: bool, named: bool
    ) -> tuple[Request, OpenSpan]:
        """A request that is recorded until it is known how it ends, where there are spans for that."""
        span = spans.tentative(name=name, ids=ids, parent=parent, local=local)
        if span is None:
            return Request(request_id, *ids, sampled=False, named=named), spans.unrecorded(*ids)
        return Request(request_id, *ids, sampled=True, named=named, tentative=True), span

    def settle(self, request: Request, span: OpenSpan, outcome: Outcome, *, seconds: float) -> bool:
        """The fate of a tentative request, which took so many seconds."""
        tail, spans = self.tail, self.spans
        keep = tail is not None and tail.keeps(outcome, seconds=seconds, cost=request.cost)
        if spans is not None:
            spans.settle(span, keep=keep)
        return keep

    def outgoing(self) -> str:
        """The `traceparent` header of a call made here, "" where there is no trace to continue."""
        if not self._propagate:
            return ""
        ids = self.spans.current() if self.spans is not None else None
        if ids is not None:
            return format_traceparent(ids[0], ids[1], sampled=ids[2])
        request = request_var.get()
        return "" if request is None else format_traceparent(request.trace_id, request.span_id, sampled=request.sampled)


class _Active:
    __slots__ = ("tracing",)

    def __init__(self) -> None:
        self.tracing = Tracing()


_active: Final = _Active()


def tracing() -> Tracing:
    """The tracing in use now; one that records nothing before instrument() and after uninstrument()."""
    return _active.tracing


def use(new: Tracing) -> None:
    """Trace with this from now on."""
    _active.tracing = new


def sampling(rate: float | None = None) -> float:
    """The share of new traces that are recorded, from 0 to 1; with a `rate` this one, until instrument() is called again.

    Where no endpoint is set there are no spans to send, whatever the rate. Raises ValueError for a rate that is no such share.
    """
    if rate is not None:
        if not 0.0 <= rate <= 1.0:
            raise ValueError("a sampling rate is from 0 to 1")
        _active.tracing.tune(rate)
    return _active.tracing.ratio
