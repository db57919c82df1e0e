"""The responder put together: server, inbox, worker, and an orderly end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from sage_obs.runbooks import loader
from sage_obs.runbooks.responder.counters import Counters
from sage_obs.runbooks.responder.inbox import Inbox
from sage_obs.runbooks.responder.server import Desk, Front
from sage_obs.runbooks.responder.worker import Worker
from sage_obs.runbooks.world import StoppedError, World

_GRACE = 3.0
"""Seconds the worker gets to stop; a run that is cut off then is resumed later like one that was killed."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen, and the bearer token that a notification must show ("" for none)."""

    host: str
    port: int
    token: str = ""


class Responder:
    """Start it, wait for it, stop it; from one thread."""

    def __init__(self, world: World, address: Address, *, parameters: dict[str, str], say: Callable[[str], None]) -> None:
        self._stopping = threading.Event()
        self._over = threading.Event()
        inbox, counters = Inbox(world.state), Counters(loader.names())
        stoppable = replace(world, sleep=self._sleep)
        self._worker = Worker(stoppable, inbox, counters, parameters=parameters, stopping=self._stopping, say=say)
        self._thread = threading.Thread(target=self._work, name="responder worker", daemon=True)
        self._failure: BaseException | None = None
        desk = Desk(inbox, counters, address.token, self._worker.news.set, self._thread.is_alive, world.clock)
        self._front = Front(desk, host=address.host, port=address.port)

    @property
    def url(self) -> str:
        """Where it answers."""
        return self._front.url

    def _sleep(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise StoppedError("The responder was asked to stop.", hint="Start it again and the run goes on.")

    def _work(self) -> None:
        try:
            self._worker.work()
        except BaseException as exc:  # noqa: BLE001 - raised again in the main thread, which ends the process
            self._failure = exc
        finally:
            self._over.set()

    def start(self) -> None:
        """Begin to work and to answer."""
        self._thread.start()
        self._front.start()

    def wait(self) -> None:
        """Until `request_stop`. Raises what ended the worker, if anything did: a responder that cannot work must not look alive."""
        self._over.wait()
        if self._failure is not None:
            raise self._failure

    def request_stop(self) -> None:
        """Ask for the end; may be called from a signal handler."""
        self._stopping.set()
        self._worker.news.set()

    def stop(self) -> None:
        """Stop accepting, let the worker stop where it can be resumed, return within a few seconds."""
        self.request_stop()
        self._front.stop()
        self._thread.join(_GRACE)
