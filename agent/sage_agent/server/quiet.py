"""Which connections of a draining server can be closed without losing a request."""

from __future__ import annotations

import select
from collections.abc import Collection

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class QuietConnections:
    """Finds the connections that have had no request for `seconds`, counted from when they were first looked at."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[HttpToolsProtocol, float] = {}

    def among(self, connections: Collection[HttpToolsProtocol], *, now: float) -> list[HttpToolsProtocol]:
        """The quiet ones. One with bytes that nobody has read yet is not quiet, however long this process did not get to run."""
        self._since = {one: now if _in_use(one) else self._since.get(one, now) for one in connections}
        return _with_nothing_to_read([one for one, since in self._since.items() if now - since >= self._seconds])


def refuse_more(connection: HttpToolsProtocol) -> None:
    """Let the answer that is being worked on tell its caller to close the connection; one that has begun can no longer say so."""
    cycle = connection.cycle
    if cycle is not None and not cycle.response_started:
        cycle.keep_alive = False


def _in_use(connection: HttpToolsProtocol) -> bool:
    """Whether a request is being received or answered; one whose headers have arrived in part has a scope but no cycle of its own."""
    cycle = connection.cycle
    if cycle is None:
        return connection.scope is not None
    return not cycle.response_complete or connection.scope is not cycle.scope


def _with_nothing_to_read(connections: Collection[HttpToolsProtocol]) -> list[HttpToolsProtocol]:
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
