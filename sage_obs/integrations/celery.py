"""celery: each task that a worker runs is a request, and the trace of whoever sends one goes on in it.

It is heard through celery's own signals. Children of the prefork pool count beside their parent, which has the metrics port.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sage_obs import ending, records
from sage_obs.health.board import board
from sage_obs.integrations import celery_task as tasks
from sage_obs.integrations.loggers import TO_ROOT, TakenOver
from sage_obs.integrations.outgoing import inject
from sage_obs.integrations.patch import Patch, Patches

_REQUEST: Final = "celery.worker.request"
"""The module of a worker's main process, which is not imported where tasks are only sent."""


@dataclass(frozen=True, slots=True)
class _Ear:
    """A receiver of one signal, by its name in `celery.signals`."""

    signal: str
    receiver: Callable[..., None]

    def connect(self) -> None:
        _signal(self.signal).connect(self.receiver, weak=False)

    def disconnect(self) -> None:
        _signal(self.signal).disconnect(self.receiver)


def _signal(name: str) -> Any:
    return getattr(sys.modules["celery.signals"], name)


class CeleryIntegration:
    """Listens to celery's signals. With logs of ours on, celery leaves the root logger, and stdout, as they are."""

    name = "celery"
    module = "celery.signals"
    versions = ("5.5", "6")

    def __init__(self) -> None:
        self._ears: tuple[_Ear, ...] = ()
        self._patches = Patches()
        self._loggers = TakenOver({"celery.task": TO_ROOT})

    def install(self) -> None:
        """Listen; a worker that has begun already is patched now."""
        import celery.signals  # noqa: F401 - it is listened to below

        if self._ears:
            return
        self._ears = self._listeners()
        for ear in self._ears:
            ear.connect()
        if _REQUEST in sys.modules:
            self._in_worker()

    def _listeners(self) -> tuple[_Ear, ...]:
        always = (
            _Ear("before_task_publish", _carry),
            _Ear("task_prerun", tasks.begin),
            _Ear("task_postrun", tasks.finish),
            _Ear("task_revoked", tasks.revoked),
            _Ear("worker_init", self._in_worker),
            _Ear("worker_ready", _started),
            _Ear("worker_process_init", tasks.in_pool),
            _Ear("worker_process_shutdown", _end),
        )
        return (*always, _Ear("setup_logging", self._take_over)) if records.handler() is not None else always

    def _in_worker(self, **_: object) -> None:
        """A worker begins in this process, which hears of the tasks whose process was lost."""
        from celery.worker.request import Request

        self._patches.install(Patch(Request, "on_failure", tasks.in_parent))
        if records.handler() is not None:
            self._loggers.take()

    def _take_over(self, **_: object) -> None:
        """Celery sets up no logging of its own where somebody answers this signal."""

    def uninstall(self) -> None:
        """Listen no more."""
        ears, self._ears = self._ears, ()
        for ear in ears:
            ear.disconnect()
        if self._patches.uninstall():
            self._loggers.give_back()


def _carry(headers: Any = None, **_: object) -> None:
    """A task is sent from here: with the trace of the request that sends it, if any."""
    if isinstance(headers, dict):
        inject("celery", headers)


def _started(**_: object) -> None:
    board().started()


def _end(**_: object) -> None:
    """A child of the pool ends, where no exit handler runs."""
    ending.near()


INTEGRATION: Final = CeleryIntegration()
