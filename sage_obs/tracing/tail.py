"""Traces that are kept or dropped when their request is over: its errors, delays and costs are known only then.

Everything waits in memory until then, so everything is bounded: spans of one trace, spans and bytes of all, and the traces themselves.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from sage_obs.conventions import Outcome

_SPANS_OF_ONE: Final = 256
_SPANS: Final = 20_000
_BYTES: Final = 32 * 1024 * 1024
_TRACES: Final = 5_000
_SETTLED: Final = 10_000
"""Traces whose fate is remembered for spans that end after their request."""

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Policy:
    """Which traces are kept: those of failed requests, of slow ones (in seconds) and of expensive ones (in USD)."""

    slow: float
    expensive: float

    def keeps(self, outcome: Outcome, *, seconds: float, cost: float) -> bool:
        """Whether the trace of a request that ended like this is worth keeping."""
        return outcome is Outcome.SERVER_ERROR or seconds >= self.slow or cost >= self.expensive


class Trace(Generic[S]):
    """The spans of one trace that wait for its fate."""

    __slots__ = ("bytes", "kept", "roots", "spans", "trace_id")

    def __init__(self, trace_id: str) -> None:
        self.trace_id = trace_id
        self.spans: list[S] = []
        self.bytes = 0
        self.roots = 1
        self.kept: bool | None = None


class Waiting(Generic[S]):
    """All traces whose fate is open. What is kept goes to `export`; what there is no room for is lost and told to `on_drop`."""

    def __init__(
        self,
        export: Callable[[S], None],
        on_drop: Callable[[int], object],
        *,
        traces: int = _TRACES,
        spans: int = _SPANS,
        size: int = _BYTES,
    ) -> None:
        self._export = export
        self._on_drop = on_drop
        self._most = (traces, spans, size)
        self.clear()

    def clear(self) -> None:
        """Nothing waits any more, as in a forked child. The lock may be entered again, from a destructor that ends a span."""
        self._lock = threading.RLock()
        self._open: OrderedDict[str, Trace[S]] = OrderedDict()
        self._settled: OrderedDict[str, bool] = OrderedDict()
        self._spans = 0
        self._bytes = 0

    def open(self, trace_id: str) -> Trace[S]:
        """A request begins whose trace may be dropped; several of one process may belong to one trace."""
        with self._lock:
            found = self._open.get(trace_id)
            if found is not None:
                found.roots += 1
                return found
            made = self._open[trace_id] = Trace(trace_id)
            if len(self._open) > self._most[0]:
                self._give_up()
            return made

    def undecided(self, trace_id: str) -> Trace[S] | None:
        """The trace of this id while its fate is open."""
        return self._open.get(trace_id)

    def _give_up(self) -> None:
        """No room for more traces: the oldest, whose request has perhaps been abandoned, is dropped."""
        _, oldest = self._open.popitem(last=False)
        self._on_drop(len(oldest.spans))
        self._fate(oldest, kept=False)

    def add(self, trace: Trace[S], span: S, size: int) -> None:
        """A span of it has ended; `size` is about how many bytes it holds."""
        with self._lock:
            if trace.kept is None:
                self._keep_for_now(trace, span, size)
            elif trace.kept:
                self._export(span)

    def _keep_for_now(self, trace: Trace[S], span: S, size: int) -> None:
        _, spans, most = self._most
        if len(trace.spans) >= _SPANS_OF_ONE or self._spans >= spans or self._bytes + size > most:
            self._on_drop(1)
            return
        trace.spans.append(span)
        trace.bytes += size
        self._spans += 1
        self._bytes += size

    def route(self, trace_id: str, span: S, size: int) -> None:
        """A span that somebody else has made has ended: it waits with its trace, or goes the way that has gone."""
        with self._lock:
            trace = self._open.get(trace_id)
            if trace is not None:
                self.add(trace, span, size)
            elif self._settled.get(trace_id, True):
                self._export(span)

    def settle(self, trace: Trace[S], *, keep: bool) -> None:
        """A request of it is over. The last one decides, and any that is worth keeping keeps it all."""
        with self._lock:
            trace.roots -= 1
            kept = keep or bool(trace.kept)
            if kept or trace.roots <= 0:
                self._open.pop(trace.trace_id, None)
                self._fate(trace, kept=kept)

    def _fate(self, trace: Trace[S], *, kept: bool) -> None:
        trace.kept = kept
        spans, trace.spans = trace.spans, []
        self._spans -= len(spans)
        self._bytes -= trace.bytes
        trace.bytes = 0
        self._settled[trace.trace_id] = kept
        while len(self._settled) > _SETTLED:
            self._settled.popitem(last=False)
        if kept:
            for span in spans:
                self._export(span)
