"""The audit log: who did what, when, and what came of it, in a file of its own. Never what was said."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

import sage_obs
from sage_agent.security.audit_file import AuditFile, Record, now
from sage_agent.security.config import AuditConfig
from sage_obs.conventions import AUDIT_RECORDS

_log = logging.getLogger("sage_agent")
_WAITING: Final = 10_000
_BATCH: Final = 1000
_LONGEST: Final = 512
"""Characters of a value: callers choose some of them."""
_MINUTE: Final = 60.0
_FAILURES_A_MINUTE: Final = 600
_CLOSE_SECONDS: Final = 5.0


class Audit(Protocol):
    """Where it is written who did what."""

    def record(self, event: str, outcome: str, *, actor: str = "", **facts: str) -> None:
        """One thing that happened. It never blocks and never fails."""

    def refused(self, outcome: str, **facts: str) -> None:
        """Somebody was not let in; of many in a minute, only the number."""


class NoAudit:
    """Implements `Audit` for an agent without one."""

    def record(self, event: str, outcome: str, *, actor: str = "", **facts: str) -> None:
        """Nothing."""

    def refused(self, outcome: str, **facts: str) -> None:
        """Nothing."""


class AuditLog:
    """Implements `Audit` by a thread that writes to a file. What cannot be written is counted, and the next record says how much it was."""

    def __init__(self, file: AuditFile, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._queue: queue.Queue[Record | None] = queue.Queue(_WAITING)
        self._overflown = 0
        self._failed = 0
        self._told = 0
        self._failing = False
        self._window = (clock(), 0)
        self._thread = threading.Thread(target=self._run, name="sage-agent-audit", daemon=True)
        self._opened = file.head
        self._thread.start()

    def record(self, event: str, outcome: str, *, actor: str = "", **facts: str) -> None:
        """Have it written; where ten thousand wait already it is counted as lost."""
        request = sage_obs.current().request_id
        shown = {name: _text(value) for name, value in {"actor": actor, "request_id": request or "", **facts}.items() if value}
        try:
            self._queue.put_nowait({"time": now(), "event": event, "outcome": outcome, **shown, "pid": os.getpid()})
        except queue.Full:
            self._overflown += 1
            sage_obs.series(AUDIT_RECORDS, "lost").add()

    def refused(self, outcome: str, **facts: str) -> None:
        """At most six hundred a minute one by one; how many more there were is said when the minute is over."""
        began, count = self._window
        if self._clock() - began >= _MINUTE:
            self._tell_suppressed()
            began, count = self._clock(), 0
        self._window = began, count + 1
        if count < _FAILURES_A_MINUTE:
            self.record("auth", outcome, **facts)

    def expose(self) -> None:
        """Put what can be counted on /metrics before it happens, and say where the chain began in another log than this one."""
        for outcome in ("written", "lost"):
            sage_obs.series(AUDIT_RECORDS, outcome).add(0)
        head = self._opened
        _log.info("audit log opened", extra={"file": str(self._file.path), "record": head.seq, "sha256": head.sha256})

    async def close(self) -> None:
        """Write what waits, for some seconds at most."""
        self._tell_suppressed()
        await asyncio.to_thread(self.finish)

    def finish(self) -> None:
        """The same, blocking."""
        try:
            self._queue.put(None, timeout=_CLOSE_SECONDS)
        except queue.Full:
            return
        self._thread.join(_CLOSE_SECONDS)

    def _tell_suppressed(self) -> None:
        began, count = self._window
        if count > _FAILURES_A_MINUTE:
            self.record("auth", "suppressed", count=str(count - _FAILURES_A_MINUTE))
        self._window = began, 0

    def _run(self) -> None:
        over = False
        while not over:
            batch = [self._queue.get()]
            while len(batch) < _BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            over = batch[-1] is None
            self._write([one for one in batch if one is not None])
        head = self._file.head
        self._file.close()
        _log.info("audit log closed", extra={"file": str(self._file.path), "record": head.seq, "sha256": head.sha256})

    def _write(self, records: list[Record]) -> None:
        lost = self._overflown + self._failed
        if lost > self._told:
            count = str(lost - self._told)
            records = [{"time": now(), "event": "audit.lost", "outcome": "lost", "count": count, "pid": os.getpid()}, *records]
        if not records:
            return
        try:
            self._file.append(records)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the thread goes on, and says what it lost
            self._lose(len(records) - (lost > self._told), getattr(exc, "strerror", None) or type(exc).__name__)
            return
        self._told, self._failing = lost, False
        sage_obs.series(AUDIT_RECORDS, "written").add(len(records))

    def _lose(self, count: int, reason: str) -> None:
        self._failed += count
        sage_obs.series(AUDIT_RECORDS, "lost").add(count)
        if not self._failing:
            self._failing = True
            _log.error("the audit log cannot be written; requests go on", extra={"file": str(self._file.path), "reason": reason})


def _text(value: str) -> str:
    """What can be written of a value: half characters, which a token may hold, are none."""
    return value[:_LONGEST].encode("utf-8", "replace").decode()


def open_audit(config: AuditConfig | None) -> AuditLog | None:
    """The audit log, None where none is wanted. Raises ConfigError where it cannot be written."""
    if config is None:
        return None
    return AuditLog(AuditFile(config.path, key=config.key.encode(), max_bytes=config.max_bytes, keep=config.keep))


def note_once(config: AuditConfig | None, event: str, outcome: str, **facts: str) -> None:
    """One record of a command that runs beside the agent, in a chain of its own. Raises ConfigError where it cannot be written."""
    audit = open_audit(config)
    if audit is not None:
        audit.record(event, outcome, **facts)
        audit.finish()


def record_start(audit: Audit, settings: Mapping[str, tuple[str, str]], secrets: Iterable[tuple[str, str]]) -> None:
    """What an agent starts with: every setting that was set, secrets masked, by its source, and which secrets were read from where."""
    audit.record("agent", "started")
    for path, (shown, source) in settings.items():
        audit.record("setting", "in effect", setting=path, value=shown, source=source)
    for name, place in secrets:
        audit.record("secret", "read", setting=name, place=place)
