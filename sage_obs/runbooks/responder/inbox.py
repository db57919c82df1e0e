"""What Alertmanager said, on disk before it is told that it was heard; so nothing it was promised is lost by a crash."""

from __future__ import annotations

import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from sage_obs.errors import JournalError
from sage_obs.files import CorruptLineError, append_json, read_json_lines
from sage_obs.runbooks.responder.alerts import Notice

FILE: Final = "responder/inbox.jsonl"


class Inbox:
    """An append-only file of notices and of what became of them. Safe to use from several threads."""

    def __init__(self, state: Path) -> None:
        self._path = state / FILE
        self._lock = threading.Lock()
        self._notices: dict[str, Notice] = {}
        self._handled: dict[str, str] = {}
        for line in self._read():
            self._take(line)

    def _read(self) -> list[dict[str, Any]]:
        try:
            return read_json_lines(self._path)
        except (CorruptLineError, OSError) as exc:
            raise JournalError(f"The responder's inbox {self._path} cannot be read: {exc}", hint="Restore or remove it.") from exc

    def _take(self, line: dict[str, Any]) -> None:
        try:
            if line["type"] == "received":
                notice = line["notice"]
                self._notices[notice["key"]] = Notice(**{**notice, "alerts": tuple(notice["alerts"])})
            else:
                self._handled[line["key"]] = str(line["result"])
        except (KeyError, TypeError) as exc:
            raise JournalError(f"The responder's inbox {self._path} holds a line that it did not write.") from exc

    def receive(self, notice: Notice, *, at: float) -> bool:
        """Keep a notice; False where it is known already. Raises OSError, and then it is not kept."""
        with self._lock:
            if notice.key in self._notices:
                return False
            self._append({"type": "received", "at": at, "notice": {**asdict(notice), "alerts": list(notice.alerts)}})
            return True

    def handled(self, notice: Notice, *, result: str, at: float) -> None:
        """Note what became of a notice. Raises OSError."""
        with self._lock:
            self._append({"type": "handled", "at": at, "key": notice.key, "result": result})

    def _append(self, line: dict[str, Any]) -> None:
        append_json(self._path, line)
        self._take(line)

    def waiting(self) -> tuple[Notice, ...]:
        """The notices that nothing was done about yet, oldest first."""
        with self._lock:
            return tuple(notice for key, notice in self._notices.items() if key not in self._handled)
