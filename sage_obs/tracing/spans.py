"""The layer's own spans: spans of OpenTelemetry's API that cost a request a twentieth of the SDK's.

Whoever asks the API for the current span gets one of these, and may write to it as to any other. What the API lets pass here passes too.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

from sage_obs.tracing.active import Attributes
from sage_obs.tracing.otlp import FIRST_KIND, LOCAL, REMOTE, Event, Facts, Link
from sage_obs.tracing.tail import Trace

_NOTHING: Final[dict[str, Any]] = {}
_BARE_BYTES: Final = 1000
_EVENT_BYTES: Final = 200
"""What an event is taken for, beside its texts."""
_DEPTH: Final = 4
"""Of lists in lists. What holds itself has no end, and whoever sets an attribute must not hear of it."""
_runtime: Final = getattr(otel_context, "_RUNTIME_CONTEXT", otel_context)
"""What the API's two functions pass everything on to, which requests do twice each."""
_get_current: Final[Callable[[], Context]] = _runtime.get_current
_attach: Final[Callable[[Context], object]] = _runtime.attach


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one span holds: attributes, events, links, and characters of a text; None is any number."""

    attributes: int | None = 128
    events: int | None = 128
    links: int | None = 128
    length: int | None = None


class Current:
    """Something that is made the current span, and stops being it.

    The context before it is put back by value, not by token: a token is good in one context only, and the API logs an error elsewhere.
    """

    _before: Context | None = None
    _here: Context | None = None

    def enter(self) -> None:
        """Make it the current span here."""
        self.make_current(self)

    def make_current(self, span: Any) -> None:
        """Make a span of the API the current one here."""
        self._before = before = _get_current()
        self._here = here = set_span_in_context(span, before)
        _attach(here)

    def leave(self) -> None:
        """It is no longer the current span, where it was made so; asked for from another context, nothing happens.

        What the application has put beside it and never taken away, such as whose request it is, must not stay for the next request.
        """
        before, now = self._before, _get_current()
        if before is not None and (now is self._here or get_current_span(now) is get_current_span(self._here)):
            _attach(before)
            self._before = self._here = None


class Unrecorded(Current, NonRecordingSpan):
    """Carries the context of what is not sampled. Its ids take OpenTelemetry's form only when somebody asks, and mostly nobody does."""

    recorded: Final = False

    def __init__(self, trace_id: str, span_id: str) -> None:  # the base class keeps a context instead
        self._trace_id = trace_id
        self._span_id = span_id

    def __repr__(self) -> str:
        return f"NonRecordingSpan({self.get_span_context()!r})"

    @property
    def ids(self) -> tuple[str, str, bool]:
        """Trace id, span id, and that it is not recorded."""
        return self._trace_id, self._span_id, False

    def get_span_context(self) -> SpanContext:
        """The ids as the API has them."""
        return context_of(self._trace_id, self._span_id, sampled=False)

    def end(self, end_time: int | None = None, *, name: str = "", attributes: Attributes = _NOTHING, error_type: str = "") -> None:
        """Nothing was recorded."""


class Recorded(Current, Span):
    """A span that `finished` gets when it has ended, once. Its duration does not follow the clock on the wall when that is set.

    One with a `trace` waits there until the fate of its request is known; what is called meanwhile hears that it is not sampled.
    """

    def __init__(  # noqa: PLR0913 - what a span is at its start
        self,
        finished: Callable[[Recorded], None],
        name: str,
        kind: SpanKind,
        ids: tuple[str, str],
        parent_id: str = "",
        *,
        remote: bool = False,
        attributes: Attributes = _NOTHING,
        limits: Limits = Limits(),
        trace: Trace[Any] | None = None,
    ) -> None:
        self._finished: Callable[[Recorded], None] | None = finished
        self._limits = limits
        self.trace = trace
        self.name = name
        self._kind = kind
        self.trace_id, self._span_id = ids
        self._parent_id = parent_id
        self._remote = remote
        self._attributes: dict[str, Any] = dict(attributes)
        self._events: list[Event] = []
        self._links: list[Link] = []
        self._dropped = [0, 0, 0]
        self._status: Status | None = None
        self._start = time.time_ns()
        self._began = time.perf_counter_ns()
        self._end = 0

    def __repr__(self) -> str:
        return f"Recorded({self.name!r}, trace_id={self.trace_id}, span_id={self._span_id})"

    @property
    def recorded(self) -> bool:
        """Whether what is said of it will be seen."""
        return self._finished is not None

    @property
    def ids(self) -> tuple[str, str, bool]:
        """Trace id, span id, and whether it will be kept for certain."""
        return self.trace_id, self._span_id, self.trace is None

    @property
    def size(self) -> int:
        """About how many bytes it holds."""
        events = sum(_EVENT_BYTES + bulk(event.attributes.values()) for event in self._events)
        return _BARE_BYTES + bulk(self._attributes.values()) + events

    def end(self, end_time: int | None = None, *, name: str = "", attributes: Attributes = _NOTHING, error_type: str = "") -> None:
        """Finish it, now or at a Unix time in nanoseconds; `error_type` is "" for success. Once: a second end changes nothing."""
        finished, self._finished = self._finished, None
        if finished is None:
            return
        self._end = end_time or self._start + time.perf_counter_ns() - self._began
        if name:
            self.name = name
        if attributes:
            self._keep(attributes)
        if error_type:
            self._keep({"error.type": error_type})
            self._status = Status(StatusCode.ERROR)
        finished(self)

    def get_span_context(self) -> SpanContext:
        """The ids as the API has them."""
        return context_of(self.trace_id, self._span_id, sampled=True)

    def is_recording(self) -> bool:
        """Whether it has not ended."""
        return self._finished is not None

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set each of them."""
        if self._finished is not None:
            self._keep(attributes)

    def set_attribute(self, key: str, value: Any) -> None:
        """Set one."""
        self.set_attributes({key: value})

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        """Something happened, now or at a Unix time in nanoseconds."""
        if self._has_room(1, self._events, self._limits.events):
            self._events.append(Event(timestamp or time.time_ns(), str(name), self._cut(attributes or _NOTHING)))

    def add_link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        """Another span that this one has to do with."""
        if context.is_valid and self._has_room(2, self._links, self._limits.links):
            ids = context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")
            flags = _flags(context.trace_flags, remote=context.is_remote)
            self._links.append(Link(*ids, context.trace_state.to_header(), self._cut(attributes or _NOTHING), flags=flags))

    def update_name(self, name: str) -> None:
        """Call it this from now on."""
        if self._finished is not None:
            self.name = str(name)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Say how it went. OK is the last word, and nobody unsets a status (OpenTelemetry, trace API, set status)."""
        made = status if isinstance(status, Status) else Status(status, description)
        settled = self._status is not None and self._status.status_code is StatusCode.OK
        if self._finished is not None and not settled and made.status_code is not StatusCode.UNSET:
            self._status = made

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,  # noqa: FBT001, FBT002 - the API's
    ) -> None:
        """An exception, with its traceback, as an event."""
        self.add_event("exception", {**_told(exception, escaped=escaped), **(attributes or _NOTHING)}, timestamp)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and self._finished is not None:
            self.record_exception(error)
            self.set_status(StatusCode.ERROR, f"{type(error).__name__}: {_text_of(error)}")
        self.end()

    def facts(self) -> Facts:
        """What an export says of it."""
        status = self._status
        return Facts(
            bytes.fromhex(self.trace_id),
            bytes.fromhex(self._span_id),
            bytes.fromhex(self._parent_id),
            self.name,
            self._kind.value + FIRST_KIND,
            self._start,
            self._end,
            self._attributes,
            _flags(TraceFlags.SAMPLED, remote=self._remote),
            events=self._events,
            links=self._links,
            status=0 if status is None else status.status_code.value,
            description="" if status is None else status.description or "",
            dropped=(self._dropped[0], self._dropped[1], self._dropped[2]),
        )

    def _keep(self, attributes: Mapping[str, Any]) -> None:
        kept, most = self._attributes, self._limits.attributes
        kept.update(self._cut(attributes))
        while most is not None and len(kept) > most:
            del kept[next(iter(kept))]
            self._dropped[0] += 1

    def _cut(self, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
        """As they are now, whatever becomes of the lists among them, and no longer than allowed."""
        longest = self._limits.length
        return {str(key): _cut(value, longest) for key, value in attributes.items()}

    def _has_room(self, kind: int, there: Sequence[object], most: int | None) -> bool:
        if self._finished is None:
            return False
        if most is None or len(there) < most:
            return True
        self._dropped[kind] += 1
        return False


def context_of(trace_id: str, span_id: str, *, sampled: bool, remote: bool = False) -> SpanContext:
    """Ids of 32 and 16 hex digits as the API has them."""
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=remote, trace_flags=flags)


def bulk(values: Iterable[object]) -> int:
    """About how many bytes the texts among these hold, those in lists included."""
    return sum(len(one) if isinstance(one, str | bytes) else bulk(one) if isinstance(one, tuple) else 0 for one in values)


def _flags(trace: int, *, remote: bool) -> int:
    return trace | (REMOTE if remote else LOCAL)


def _cut(value: Any, longest: int | None, depth: int = _DEPTH) -> Any:
    if isinstance(value, str):
        return value if longest is None else value[:longest]
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return tuple(_cut(one, longest, depth - 1) for one in value) if depth else f"<{type(value).__name__}>"
    return value


def _told(exception: BaseException, *, escaped: bool) -> dict[str, str]:
    kind = type(exception)
    module = "" if kind.__module__ in {"builtins", None} else f"{kind.__module__}."
    return {
        "exception.type": f"{module}{kind.__qualname__}",
        "exception.message": _text_of(exception),
        "exception.stacktrace": _traceback_of(exception),
        "exception.escaped": str(escaped),
    }


def _text_of(exception: BaseException) -> str:
    try:
        return str(exception)
    except Exception:  # noqa: BLE001 - its `__str__` is the application's
        return f"<{type(exception).__name__}>"


def _traceback_of(exception: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(exception))
    except Exception:  # noqa: BLE001 - the same
        return ""
