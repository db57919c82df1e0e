"""Where log libraries with loggers of their own leave their records: the handler that makes lines of them.

They do not go through the standard library's loggers, as applications also send those the other way, into their library.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Final

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


@dataclass(frozen=True, slots=True)
class Source:
    """The line of code a record comes from."""

    path: str = ""
    line: int = 0
    function: str = ""


Again = Callable[[Callable[[logging.Handler], bool]], None]
"""Takes the root logger over once more; handlers of which the argument says so rest."""


class _Active:
    __slots__ = ("again", "handler")

    def __init__(self) -> None:
        self.handler: logging.Handler | None = None
        self.again: Again | None = None


_active: Final = _Active()
_NOWHERE: Final = Source()
_NONE: Final = (None, None, None)


def use(handler: logging.Handler | None, again: Again | None = None) -> None:
    """Hand records to this from now on; None while there are no logs of ours. `again` is for when somebody else has the root logger."""
    _active.handler, _active.again = handler, again


def handler() -> logging.Handler | None:
    """What makes lines of records now."""
    return _active.handler


def set_up_anew(rests: Callable[[logging.Handler], bool]) -> None:
    """The application has set the root logger up: our handler comes back, and those of its handlers that `rests` rest."""
    if _active.again is not None:
        _active.again(rests)


_said: Final[ContextVar[str | None]] = ContextVar("sage_obs_said", default=None)


@contextmanager
def said(message: str) -> Iterator[None]:
    """A line has been made of this message: within the block it is passed on, perhaps to the standard library's loggers."""
    before = _said.set(message)
    try:
        yield
    finally:
        _said.reset(before)


def repeats(record: logging.LogRecord) -> bool:
    """Whether a record is one that has its line already, and comes again by a way of the application's."""
    message = _said.get()
    return message is not None and message in str(record.msg)


def make(
    message: str,
    *,
    logger: str,
    level: int,
    extras: Mapping[str, object],
    exc_info: ExcInfo | None = None,
    level_name: str = "",
    source: Source = _NOWHERE,
) -> logging.LogRecord:
    """A record with these extras. One that has the name of an attribute of every record is kept as `extra.NAME`."""
    record = logging.LogRecord(logger, level, source.path, source.line, message, None, exc_info, source.function)
    record.levelname = level_name or record.levelname
    own = record.__dict__
    own.update({f"extra.{key}" if key in own or key == "message" else str(key): value for key, value in extras.items()})
    return record


def exc_info_of(value: object) -> ExcInfo | None:
    """What `exc_info` means: an exception, a triple, or anything true for the exception that is being handled."""
    if isinstance(value, BaseException):
        return type(value), value, value.__traceback__
    kind, error, trace = value if isinstance(value, tuple) else sys.exc_info() if value else _NONE
    return None if kind is None or error is None else (kind, error, trace)
