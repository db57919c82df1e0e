"""The access log: a line for every request that was answered, wherever such lines go."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from sage_obs.conventions import ErrorType, Outcome
from sage_obs.tracing.context import Request

LOGGER: Final = logging.getLogger("sage_obs.access")


Facts = tuple[str, str, int | str, str, Outcome, ErrorType | None]
"""Method, path, status, operation, outcome and kind of error: what many requests have in common.

The status is a number, 0 where no answer was begun, or a word in protocols that have words for it.
"""
Write = Callable[[Request, float, Facts], None]
"""Writes the line of a request that took so many seconds."""


def log(request: Request, seconds: float, facts: Facts) -> None:
    """Write the line with the logging module, to whatever handlers the application has."""
    method, path, status, operation, outcome, error_type = facts
    record = logging.LogRecord(LOGGER.name, logging.INFO, __file__, 0, "%s %s %s", (method, path, status or "-"), None)
    record.__dict__.update(
        operation=operation,
        outcome=outcome.value,
        error_type=None if error_type is None else error_type.value,
        request_id=request.request_id,
        trace_id=request.trace_id,
        span_id=request.span_id,
        duration_ms=round(seconds * 1000, 3),
    )
    LOGGER.handle(record)


class _Active:
    __slots__ = ("write",)

    def __init__(self) -> None:
        self.write: Write = log


_active: Final = _Active()


def use(write: Write = log) -> None:
    """Write the lines this way from now on."""
    _active.write = write


def served(request: Request, seconds: float, facts: Facts) -> None:
    """Write the line of a request that is over, unless the logger's level forbids it.

    Nobody disables this logger but a `dictConfig` or `fileConfig` that does not name it, and that means the application's own.
    """
    if LOGGER.disabled:
        LOGGER.disabled = False
    if LOGGER.isEnabledFor(logging.INFO):
        _active.write(request, seconds, facts)
