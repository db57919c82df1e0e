"""Waiting for the metrics port in a process that shares its metrics with the one that has it."""

from __future__ import annotations

import http.client
import logging
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Final

from sage_obs.conventions import HEALTH_PATHS, METRICS_PATH
from sage_obs.metrics.active import internal_error
from sage_obs.metrics.sharing import Sharing

_log = logging.getLogger("sage_obs")
_SECONDS: Final = 0.5
"""Between attempts: a port is without a server for less than a second."""
_PATIENCE: Final = 20
"""Attempts after which a port that no sibling can have is worth a word."""
_KNOCK_SECONDS: Final = 1.0
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - where to find who listens there


class Turn:
    """Calls `take` until that has the port, and `tell` after each scrape that somebody else has answered.

    `knock` is whether who has the port may not know of this process yet.
    """

    def __init__(self, take: Callable[[], bool], tell: Callable[[], None], sharing: Sharing, *, host: str, port: int, knock: bool) -> None:
        self._take = take
        self._tell = tell
        self._sharing = sharing
        self._knocks = knock
        self._address = (_EVERYWHERE.get(host, host), port)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="sage-obs-turn", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait no more."""
        self._closed.set()
        self._thread.join()

    def _work(self) -> None:
        if self._try():
            return
        if self._knocks:
            self._knock(next(iter(HEALTH_PATHS)))
        asked = attempts = 0
        while not self._closed.wait(_SECONDS):
            if self._try():
                return
            if (now := self._sharing.asked()) != asked:
                asked = now
                self._answer()
            attempts += 1
            if attempts == _PATIENCE and not asked and not self._is_of_this_service():
                _log.warning("metrics and health are not served: a process that is not of this service has port %d", self._address[1])

    def _try(self) -> bool:
        return self._sharing.may_answer and self._take()

    def _is_of_this_service(self) -> bool:
        """Whether who has the port shares with this process: then a scrape leaves a sign where they meet."""
        self._knock(METRICS_PATH)
        return self._sharing.asked() > 0

    def _knock(self, path: str) -> None:
        """Let who has the port see that it has company: a parent that did not fork this process does not know yet."""
        connection = http.client.HTTPConnection(*self._address, timeout=_KNOCK_SECONDS)
        with suppress(OSError, http.client.HTTPException), closing(connection):
            connection.request("GET", path)
            connection.getresponse().read()

    def _answer(self) -> None:
        try:
            self._tell()
        except Exception as exc:  # noqa: BLE001 - the next scrape asks again
            internal_error("ops", exc)
