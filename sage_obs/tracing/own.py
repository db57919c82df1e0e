"""The source of the layer's own spans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Span, SpanKind

from sage_obs.tracing.active import Attributes, OpenSpan
from sage_obs.tracing.context import Parent, chance, new_ids
from sage_obs.tracing.otel import OtelSpans, OwnProvider, ids_of
from sage_obs.tracing.spans import Limits, Recorded, Unrecorded
from sage_obs.tracing.tail import Trace, Waiting

_NOTHING: Final[Attributes] = {}


class OwnSpans:
    """Makes spans that `finished` gets when they end. Where somebody else watches the provider, the SDK makes them instead.

    `ratio` (0 to 1) is how many traces are recorded that begin here outside a request. With `waiting` there are tentative ones.
    """

    def __init__(
        self,
        provider: OwnProvider,
        finished: Callable[[Recorded], None],
        *,
        ratio: float,
        limits: Limits,
        waiting: Waiting[Recorded | ReadableSpan] | None = None,
    ) -> None:
        self.provider = provider
        self._finished = finished
        self._waiting = waiting
        self._ratio = ratio
        self._limits = limits
        self._sdk = OtelSpans(provider)

    def server(self, *, name: str, ids: tuple[str, str], parent: Parent | None, local: bool = False) -> OpenSpan:
        """A span for a request, a server's unless it is `local`, which is the current one from here on."""
        if self.provider.watched:
            return self._sdk.server(name=name, ids=ids, parent=parent, local=local)
        kind, around = SpanKind.INTERNAL if local else SpanKind.SERVER, "" if parent is None else parent.span_id
        span = Recorded(self._finished, name, kind, ids, around, remote=parent is not None and not local, limits=self._limits)
        span.enter()
        return span

    def tentative(self, *, name: str, ids: tuple[str, str], parent: Parent | None, local: bool = False) -> OpenSpan | None:
        """The same for a request that is not sampled, recorded until `settle` says whether to keep it."""
        if self._waiting is None or self.provider.watched:
            return None
        kind, around = SpanKind.INTERNAL if local else SpanKind.SERVER, "" if parent is None else parent.span_id
        trace_ = self._waiting.open(ids[0])
        span = Recorded(self._ended, name, kind, ids, around, remote=parent is not None and not local, limits=self._limits, trace=trace_)
        span.enter()
        return span

    def settle(self, span: OpenSpan, *, keep: bool) -> None:
        """The request of a tentative span is over."""
        if isinstance(span, Recorded) and span.trace is not None and self._waiting is not None:
            self._waiting.settle(span.trace, keep=keep)

    def _ended(self, span: Recorded) -> None:
        """A span has ended that is of a tentative trace, or under a span of somebody else's, which may be of one."""
        if self._waiting is None:
            self._finished(span)
        elif span.trace is not None:
            self._waiting.add(span.trace, span, span.size)
        else:
            self._waiting.route(span.trace_id, span, span.size)

    def unrecorded(self, trace_id: str, span_id: str) -> Unrecorded:
        """One that carries the context of a request and records nothing; it is the current one from here on."""
        span = Unrecorded(trace_id, span_id)
        span.enter()
        return span

    def client(self, *, name: str, attributes: Attributes) -> OpenSpan:
        """A client span under the current one. It is not made current: its user may be a generator."""
        if self.provider.watched:
            return self._sdk.client(name=name, attributes=attributes)
        return self._child(name, SpanKind.CLIENT, attributes)

    def internal(self, *, name: str, attributes: Attributes, attach: bool) -> OpenSpan:
        """An internal span under the current one; attached, it is the current one until it is left."""
        if self.provider.watched:
            return self._sdk.internal(name=name, attributes=attributes, attach=attach)
        span = self._child(name, SpanKind.INTERNAL, attributes)
        if attach:
            span.enter()
        return span

    def current(self) -> tuple[str, str, bool] | None:
        """The ids of the span that is current here."""
        span = trace.get_current_span()
        if isinstance(span, Recorded | Unrecorded):
            return span.ids
        ids = ids_of(span.get_span_context())
        return ids if ids is None or self._held(span) is None else (ids[0], ids[1], False)

    def _held(self, span: Span) -> Trace[Recorded | ReadableSpan] | None:
        """The trace of open fate that a span belongs to: one of the SDK's, which knows nothing of it, by its id."""
        if isinstance(span, Recorded):
            return span.trace
        if self._waiting is None or not span.is_recording():
            return None
        return self._waiting.undecided(f"{span.get_span_context().trace_id:032x}")

    def _child(self, name: str, kind: SpanKind, attributes: Attributes) -> Recorded | Unrecorded:
        around, (trace_id, span_id, _) = trace.get_current_span(), new_ids()
        held, ids, parent_id, sampled = self._held(around), self.current(), "", chance() < self._ratio
        if ids is not None:
            trace_id, parent_id, sampled = ids
        if not sampled and held is None:
            return Unrecorded(trace_id, span_id)
        known = isinstance(around, Recorded) and held is None
        finished, remote = self._finished if known else self._ended, ids is not None and around.get_span_context().is_remote
        own = (trace_id, span_id)
        return Recorded(finished, name, kind, own, parent_id, remote=remote, attributes=attributes, limits=self._limits, trace=held)
