"""The request being served: its ids, its fate so far and how long it waited for models and tools.

The context variables hold objects, so that tasks and threads a request starts see the same request. They are set back by value, not
by token: a generator that is closed elsewhere must not raise.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from sage_obs.conventions import ErrorType

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/=+@-]{1,128}", re.ASCII)
_SAMPLED: Final = 0x01
_random: Final = random.Random()  # noqa: S311 - ids, not secrets
"""One of our own: an application that seeds `random` gets its numbers, and does not get the same ids again and again."""
chance: Final = _random.random
"""A random number from 0 to 1."""
_NONZERO: Final = 1 << 128 | 1 << 64
"""The last bits of the trace id and of the span id in 256 random ones."""


@dataclass(frozen=True, slots=True)
class Parent:
    """The caller's span, from a `traceparent` header (W3C Trace Context)."""

    trace_id: str
    span_id: str
    sampled: bool


def parse_traceparent(header: str) -> Parent | None:
    """The caller's span, None where the header is missing or not valid (W3C Trace Context, 3.2.2)."""
    match = _TRACEPARENT.fullmatch(header.strip())
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def format_traceparent(trace_id: str, span_id: str, *, sampled: bool) -> str:
    """A `traceparent` header."""
    return f"00-{trace_id}-{span_id}-{'01' if sampled else '00'}"


def new_ids() -> tuple[str, str, str]:
    """The ids of a request that nobody has named, all at once for the price of one.

    A trace id of 32 hex digits, a span id of 16, neither of them all zero, and a request id.
    """
    digits = (_random.getrandbits(256) | _NONZERO).to_bytes(32, "big").hex()
    return digits[:32], digits[32:48], "req-" + digits[48:]


def reseed() -> None:
    """In a forked child: have other ids than the parent."""
    _random.seed()


def sane_request_id(text: str) -> str:
    """A caller's request id if it is printable and short enough for a log line and a header, else ""."""
    return text if _REQUEST_ID.fullmatch(text) else ""


class Waiting:
    """Time spent waiting for models and tools. What overlaps counts once: the union of the waits, not their sum.

    It takes no lock, for the reason given at `sage_obs.metrics.cells`: after the clock has been read nothing here can be interrupted.
    """

    __slots__ = ("_clock", "_open", "_since", "_total")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open = 0
        self._since = 0.0
        self._total = 0.0

    def begin(self) -> None:
        """One more wait begins."""
        now = self._clock()
        if not self._open:
            self._since = now
        self._open += 1

    def end(self) -> None:
        """One of the waits ends."""
        now = self._clock()
        self._open -= 1
        if not self._open:
            self._total += now - self._since

    def seconds(self) -> float:
        """The time waited until now, in seconds; waits that are still open count."""
        if not self._open:
            return self._total
        now = self._clock()
        return self._total + (now - self._since if self._open else 0.0)


class Request:
    """The request being served. `named` says that its caller chose its id; `error_type` is what `record_error` said of it.

    `steps` is how many models and tools it has called, `cost` what that cost in USD. `carries` says that its body holds requests of
    another protocol, which count themselves. A `tentative` one is recorded, and whether that is kept is not known before its end. Tasks
    that outlive it, and connections that carry another one after it, still see it once it is `finished`.
    """

    __slots__ = (
        "_clock",
        "_waiting",
        "carries",
        "cost",
        "error_type",
        "finished",
        "named",
        "request_id",
        "sampled",
        "span_id",
        "steps",
        "tentative",
        "trace_id",
    )

    def __init__(
        self,
        request_id: str,
        trace_id: str,
        span_id: str,
        *,
        sampled: bool,
        named: bool = False,
        tentative: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.request_id = request_id
        self.named = named
        self.trace_id = trace_id
        self.span_id = span_id
        self.sampled = sampled
        self.error_type: ErrorType | None = None
        self.finished = False
        self.carries = False
        self.steps = 0
        self.cost = 0.0
        self.tentative = tentative
        self._clock = clock
        self._waiting: Waiting | None = None

    @property
    def waiting(self) -> Waiting:
        """Its waits; most requests have none, and none is made for them. After the second look nothing can come between."""
        if self._waiting is None:
            made = Waiting(self._clock)
            if self._waiting is None:
                self._waiting = made
        return self._waiting

    def waited(self) -> float:
        """How long it has waited until now, in seconds."""
        return 0.0 if self._waiting is None else self._waiting.seconds()


@dataclass(frozen=True, slots=True)
class CurrentRequest:
    """The ids of the request being served; "" outside one."""

    request_id: str = ""
    trace_id: str = ""
    span_id: str = ""


request_var: Final[ContextVar[Request | None]] = ContextVar("sage_obs_request", default=None)
ambient_var: Final[ContextVar[Mapping[str, str] | None]] = ContextVar("sage_obs_ambient", default=None)
_NONE: Final = CurrentRequest()


def under_way() -> Request | None:
    """The request being served here, None where it has finished already."""
    request = request_var.get()
    return None if request is None or request.finished else request


def current() -> CurrentRequest:
    """The ids of the request being served here."""
    request = request_var.get()
    return _NONE if request is None else CurrentRequest(request.request_id, request.trace_id, request.span_id)


def record_error(error_type: ErrorType | str) -> None:
    """Mark the request being served as failed, even if its answer is a 200. Outside a request nothing happens.

    What it counts as follows from the type (see `sage_obs.integrations.outcome`). A type outside the taxonomy counts as `internal`.
    """
    request = request_var.get()
    if request is not None:
        request.error_type = as_error_type(error_type)


def as_error_type(value: object) -> ErrorType:
    """A member of the taxonomy; `internal` for anything else."""
    try:
        return ErrorType(str(value))
    except ValueError:
        return ErrorType.INTERNAL
