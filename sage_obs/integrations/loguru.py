"""loguru: its records become our lines, with what is bound to them as extras; handlers that write to stdout or stderr rest meanwhile.

They stay where they are, added and removed by the application as ever, and are only passed over; files and functions are written to as
ever. Ours is one of loguru's too, so that loguru makes records for it, but writes outside loguru's lock: a value that logs while it is
being formatted could not wait for it.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, Final

from sage_obs import records
from sage_obs.integrations.patch import Patch, Patches
from sage_obs.integrations.terminal import is_terminal
from sage_obs.metrics.active import internal_error


class LoguruIntegration:
    """Sends what is logged with `loguru.logger` through our lines."""

    name = "loguru"
    module = "loguru"
    versions = ("0.7.2", "1")

    def __init__(self) -> None:
        self._patches = Patches()
        self._logger: Any = None
        self._id = -1

    def install(self) -> None:
        """Add a handler of ours, pass those on the terminal over, and keep ours when the application removes them all."""
        from loguru import _handler, _logger, _simple_sinks, logger

        self._logger = logger
        installed = self._patches.install(
            Patch(_handler.Handler, "emit", self._emitting),
            Patch(_logger.Logger, "remove", self._removing),
            Patch(_simple_sinks.StandardSink, "write", _passing_on),
            Patch(_simple_sinks.CallableSink, "write", _passing_on),
        )
        if installed:
            level = logging.getLogger().getEffectiveLevel()
            self._id = logger.add(_passed_over, level=level, format=_unformatted, catch=False, backtrace=False, diagnose=False)

    def uninstall(self) -> None:
        """Take ours away; the application's handlers are in use again."""
        if self._patches.uninstall() and self._id in self._handlers():
            self._logger.remove(self._id)

    def _handlers(self) -> dict[int, Any]:
        found: dict[int, Any] = self._logger._core.handlers  # noqa: SLF001 - loguru has no other way to ask
        return found

    def _emitting(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def emit(handler: Any, record: Any, *args: Any, **kwargs: Any) -> None:
            handlers = self._handlers()
            if not self._patches or self._id not in handlers or handler not in handlers.values():
                original(handler, record, *args, **kwargs)
            elif handler is handlers[self._id]:
                if record["level"].no >= handler.levelno:
                    _write(record)
            elif not _is_on_terminal(handler._sink):  # noqa: SLF001 - as above
                original(handler, record, *args, **kwargs)

        return emit

    def _removing(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def remove(logger: Any, handler_id: int | None = None) -> None:
            if handler_id is None and self._patches and self._id in logger._core.handlers:  # noqa: SLF001 - as above
                for found in [one for one in logger._core.handlers if one != self._id]:  # noqa: SLF001 - as above
                    original(logger, found)
            else:
                original(logger, handler_id)

        return remove


def _is_on_terminal(sink: Any) -> bool:
    """Whether a sink is a stream, a handler of the standard library's or a method of one that leads to the process's own output."""
    handler, function = getattr(sink, "_handler", None), getattr(sink, "_function", None)
    streams = (getattr(sink, "_stream", None), getattr(handler, "stream", None), getattr(function, "__self__", None))
    return any(is_terminal(stream) for stream in streams if stream is not None)


def _passing_on(original: Callable[..., None]) -> Callable[..., None]:
    """What a sink hands to the standard library's loggers has its line already."""

    @functools.wraps(original)
    def write(sink: Any, message: Any) -> None:
        with records.said(message.record["message"]):
            original(sink, message)

    return write


def _write(record: Any) -> None:
    handler = records.handler()
    if handler is None:
        return
    try:
        made = records.make(
            record["message"],
            logger=record["name"] or "loguru",
            level=record["level"].no,
            level_name=record["level"].name,
            extras=record["extra"],
            exc_info=records.exc_info_of(record["exception"]),
            source=records.Source(record["file"].path, record["line"], record["function"]),
        )
        made.created = record["time"].timestamp()
        handler.handle(made)
    except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
        internal_error("loguru", exc)


def _unformatted(_record: object) -> str:
    return ""


def _passed_over(message: str) -> None:
    """Loguru's own way to our handler, which is not taken."""
    del message


INTEGRATION: Final = LoguruIntegration()
