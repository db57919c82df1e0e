"""The root logger in our hands, and given back as it was."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from sage_obs import records
from sage_obs.logs.writer import Writer


class MakesLines(Protocol):
    """Makes a line of every record, whatever it holds."""

    def line(self, record: logging.LogRecord) -> bytes:
        """The record as one line that ends with a newline."""


class LineHandler(logging.Handler):
    """Formats where the record is made, as its context and arguments are right only there, and leaves the writing to the writer."""

    def __init__(self, lines: MakesLines, writer: Writer) -> None:
        super().__init__()
        self._lines = lines
        self._writer = writer

    def handle(self, record: logging.LogRecord) -> Any:
        """As every handler, but for the lock, which nothing here needs and a value that logs while it is formatted could wait for."""
        kept: Any = not records.repeats(record) and (self.filter(record) if self.filters else True)
        if kept:
            self.emit(kept if isinstance(kept, logging.LogRecord) else record)
        return kept

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record's line; errors go out at once."""
        self._writer.write(self._lines.line(record), urgent=record.levelno >= logging.ERROR)

    def leave_stdout(self) -> None:
        """Stdout speaks a protocol from here on: lines that went there go to stderr."""
        self._writer.leave_stdout()


class RootLogger:
    """Replaces the root logger's handlers and level; `uninstall` puts back what was there."""

    def __init__(self, handler: logging.Handler, *, level: str) -> None:
        self._handler = handler
        self._level = level.upper()
        self._handlers: list[logging.Handler] = []
        self._old_level = logging.WARNING

    def install(self) -> None:
        """Take over."""
        root = logging.getLogger()
        self._handlers, self._old_level = list(root.handlers), root.level
        root.handlers[:] = [self._handler]
        root.setLevel(self._level)

    def again(self, rests: Callable[[logging.Handler], bool]) -> None:
        """Take over what the application has set up meanwhile, unless ours is there; of its handlers only those that `rests` rest."""
        root = logging.getLogger()
        if self._handler not in root.handlers:
            self._handlers, self._old_level = list(root.handlers), root.level
            root.handlers[:] = [self._handler, *(one for one in self._handlers if not rests(one))]
            root.setLevel(self._level)

    def uninstall(self) -> None:
        """Give back; handlers that somebody added meanwhile stay."""
        root = logging.getLogger()
        added = [handler for handler in root.handlers if handler is not self._handler and handler not in self._handlers]
        root.handlers[:] = [*self._handlers, *added]
        root.setLevel(self._old_level)
