"""Logs as a component of the layer."""

from __future__ import annotations

import logging
import sys
from typing import IO

from sage_obs import access, records
from sage_obs.conventions import LOGS_DROPPED
from sage_obs.logs.access import AccessLog
from sage_obs.logs.lines import Identity, Lines
from sage_obs.logs.quick import QuickLines
from sage_obs.logs.root import LineHandler, RootLogger
from sage_obs.logs.writer import Writer, open_sink
from sage_obs.metrics.store import Store
from sage_obs.settings import Settings


def standard_stream(name: str) -> IO[str]:
    """The process's stdout or stderr as it is now; the one it began with where a logger has taken its place, as celery's do."""
    now, first = (sys.stderr, sys.__stderr__) if name == "stderr" else (sys.stdout, sys.__stdout__)
    return first if first is not None and isinstance(getattr(now, "logger", None), logging.Logger) else now


class LogsComponent:
    """The root logger's records as lines on the output that the settings name."""

    name = "logs"

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._dropped = store.cell(LOGS_DROPPED)
        self._writer: Writer | None = None
        self._root: RootLogger | None = None

    def start(self) -> str:
        """Take the root logger over. Raises UnavailableError where the output cannot be written to."""
        settings = self._settings
        sink = open_sink(settings.log_output, stream_of=standard_stream)
        identity = Identity(settings.agent_id, settings.service_name, settings.version)
        self._writer = Writer(sink, on_drop=self._dropped.add)
        text = settings.log_format == "text"
        lines = Lines(identity, text=text)
        handler = LineHandler(lines if text else QuickLines(identity, lines), self._writer)
        self._root = RootLogger(handler, level=settings.log_level)
        self._root.install()
        records.use(handler, self._root.again)
        if not text:
            access.use(AccessLog(identity, self._writer, handler))
        return f"{settings.log_level} and above as {settings.log_format} on {settings.log_output}"

    def flush(self, timeout: float) -> bool:
        """Write what is queued, waiting at most `timeout` seconds."""
        return self._writer is None or self._writer.flush(timeout)

    def finish(self, timeout: float) -> bool:
        """Write what is queued within `timeout` seconds; what is logged later is written by whoever logs it."""
        return self._writer is None or self._writer.finish(timeout)

    def stop(self, timeout: float) -> None:
        """Give the root logger back and write what is queued within `timeout` seconds."""
        access.use()
        if self._root is not None:
            records.use(None)
            self._root.uninstall()
        if self._writer is not None:
            self._writer.close(timeout)
        self._root = self._writer = None

    def restart_after_fork(self) -> None:
        """Be usable in a forked child."""
        if self._writer is not None:
            self._writer.restart_after_fork()
