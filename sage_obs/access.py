"""The access log: a line for every request that was answered, wherever such lines go."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from sage_obs.conventions import ErrorType, Outcome
from sage_obs.tracing.context import Request

LOGGER: Final = logging.getLogger("sage_obs.access")


class Served(NamedTuple):
    """A request that is over. `status` is 0 where no answer was begun, `seconds` its duration."""

    request: Request
    method: str
    path: str
    status: int
    operation: str
    outcome: Outcome
    error_type: ErrorType | None
    seconds: float

    @property
    def duration_ms(self) -> float:
        """The duration as the line has it."""
        return round(self.seconds * 1000, 3)


def log(served: Served) -> None:
    """Write the line with the logging module, to whatever handlers the application has."""
    record = logging.LogRecord(LOGGER.name, logging.INFO, __file__, 0, "%s %s %s", (served.method, served.path, served.status or "-"), None)
    record.__dict__.update(
        operation=served.operation,
        outcome=served.outcome.value,
        error_type=None if served.error_type is None else served.error_type.value,
        request_id=served.request.request_id,
        trace_id=served.request.trace_id,
        span_id=served.request.span_id,
        duration_ms=served.duration_ms,
    )
    LOGGER.handle(record)


class _Active:
    __slots__ = ("write",)

    def __init__(self) -> None:
        self.write: Callable[[Served], None] = log


_active: Final = _Active()


def use(write: Callable[[Served], None] = log) -> None:
    """Write the lines this way from now on."""
    _active.write = write


def served(request: Served) -> None:
    """Write the line of a request, unless the logger's level forbids it."""
    if LOGGER.isEnabledFor(logging.INFO):
        _active.write(request)
