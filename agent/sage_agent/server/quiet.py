"""Which connections of a draining server can be closed without losing a request."""

from __future__ import annotations

import select
from collections.abc import Collection

from sage_agent.server.connections import Opened


class QuietConnections:
    """Finds the connections that have had no request for `seconds`, counted from when they were first looked at."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[Opened, float] = {}

    def among(self, connections: Collection[Opened], *, now: float) -> list[Opened]:
        """The quiet ones. One with bytes that nobody has read yet is not quiet, however long this process did not get to run."""
        self._since = {one: now if one.in_use else self._since.get(one, now) for one in connections}
        return _with_nothing_to_read([one for one, since in self._since.items() if now - since >= self._seconds])


def _with_nothing_to_read(connections: Collection[Opened]) -> list[Opened]:
    poller = select.poll()
    waiting = {}
    for connection in connections:
        if not connection.transport.is_closing():
            number = connection.transport.get_extra_info("socket").fileno()
            waiting[number] = connection
            poller.register(number, select.POLLIN)
    for number, _ in poller.poll(0):
        del waiting[number]
    return list(waiting.values())
