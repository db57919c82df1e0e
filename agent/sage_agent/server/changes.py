"""A supervisor's part in changes that one worker was asked for and all are to make."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sage_agent.server.line import Said, say

_PATIENCE: Final = 3.0
"""How long workers may take over a change before it is told that they have not made it."""
_LASTING: Final = frozenset({"log-level", "tracing"})
"""Changes that hold for workers that are started later, too."""


@dataclass(slots=True)
class _Change:
    line: socket.socket
    number: int
    asked: int
    waiting: set[int]
    until: float
    took: int = 0


@dataclass(slots=True)
class Changes:
    """Hands changes to the workers, and tells who asked how many made them."""

    _under_way: dict[int, _Change] = field(default_factory=dict)
    _lasting: dict[str, Any] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def ask(self, said: Said, asker: socket.socket, lines: Mapping[int, socket.socket], *, now: float) -> None:
        """Have a change made at the end of each line, by process id."""
        number, name, value = next(self._numbers), said["name"], said["value"]
        if name in _LASTING:
            self._lasting[name] = value
        told = {pid for pid, line in lines.items() if say(line, _order(number, name, value))}
        self._under_way[number] = _Change(asker, said["number"], len(lines), told, now + _PATIENCE)

    def catch_up(self, line: socket.socket) -> None:
        """Have a worker make the changes that were made before it was ready."""
        for name, value in self._lasting.items():
            say(line, _order(next(self._numbers), name, value))

    def forget(self) -> None:
        """Workers that are started from now on are as they are configured."""
        self._lasting.clear()

    def done(self, said: Said, pid: int) -> None:
        """A worker has made a change, or could not."""
        change = self._under_way.get(said["change"])
        if change is not None and pid in change.waiting:
            change.waiting.discard(pid)
            change.took += said["took"]

    def without(self, pid: int) -> None:
        """A worker has ended."""
        for change in self._under_way.values():
            change.waiting.discard(pid)

    def tell(self, now: float) -> None:
        """Tell those who asked what has become of it, where that is known or has taken too long."""
        for number, change in list(self._under_way.items()):
            if not change.waiting or now >= change.until:
                del self._under_way[number]
                say(change.line, {"say": "reach", "number": change.number, "asked": change.asked, "took": change.took})


def _order(number: int, name: str, value: Any) -> Said:
    return {"say": "change", "change": number, "name": name, "value": value}
