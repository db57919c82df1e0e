"""One registered check: run apart from whoever asks, judged by its timeout, never run twice at once."""

from __future__ import annotations

import asyncio
import enum
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, cast

DEFAULT_TIMEOUT_SECONDS: Final = 2.0
CheckFunction = Callable[[], bool | None] | Callable[[], Awaitable[bool | None]]
Runner = Callable[[Callable[[], None]], None]


class Status(enum.StrEnum):
    """What a check or a probe says."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"

    @property
    def gauge(self) -> float:
        """1 healthy, 0.5 degraded, 0 unhealthy."""
        return {Status.HEALTHY: 1.0, Status.DEGRADED: 0.5, Status.UNHEALTHY: 0.0}[self]


@dataclass(frozen=True, slots=True)
class Result:
    """What one run of a check found; `message` is "" where there is nothing to say."""

    status: Status
    message: str = ""


def in_thread(work: Callable[[], None]) -> None:
    """Run it in a daemon thread: a check that hangs must not keep the process from ending."""
    threading.Thread(target=work, name="sage-obs-check", daemon=True).start()


class Check:
    """A named check. A run that has not ended is joined, not repeated, so a hanging check costs one thread."""

    def __init__(
        self,
        name: str,
        function: CheckFunction,
        *,
        critical: bool,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
        runner: Runner = in_thread,
    ) -> None:
        self.name = name
        self.critical = critical
        self.timeout = timeout
        self._function = function
        self._clock = clock
        self._runner = runner
        self._lock = threading.Lock()
        self._run: Future[Result] | None = None
        self._since = 0.0
        self._last: Result | None = None

    def start(self, loop: asyncio.AbstractEventLoop | None = None) -> Future[Result]:
        """Begin a run, or join the one under way. A coroutine runs on `loop`, the application's, where its connections live."""
        with self._lock:
            if self._run is not None and not self._run.done():
                return self._run
            run: Future[Result] = Future()
            self._run = run
            self._since = self._clock()
        if inspect.iscoroutinefunction(self._function) and loop is not None and loop.is_running():
            loop.call_soon_threadsafe(self._spawn, run, loop)
        else:
            self._runner(lambda: run.set_result(self._call()))
        return run

    def result(self) -> Result:
        """What is known now: the last run's finding, or unhealthy where the run under way is over its time."""
        run = self._run
        if run is not None and run.done():
            self._last = run.result()
        elif run is not None and self._clock() - self._since >= self.timeout:
            return Result(Status.UNHEALTHY, f"no answer within {self.timeout:g} s")
        return self._last or Result(Status.UNHEALTHY, "not checked yet")

    def _spawn(self, run: Future[Result], loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(self._await())
        task.add_done_callback(lambda done: run.set_result(Result(Status.UNHEALTHY, "cancelled") if done.cancelled() else done.result()))

    async def _await(self) -> Result:
        try:
            return _judged(await cast("Awaitable[bool | None]", self._function()))
        except Exception as exc:  # noqa: BLE001 - whatever a check raises is its finding
            return _failed(exc)

    def _call(self) -> Result:
        try:
            found = self._function()
            return _judged(asyncio.run(cast("Coroutine[Any, Any, bool | None]", found)) if inspect.iscoroutine(found) else found)
        except Exception as exc:  # noqa: BLE001 - whatever a check raises is its finding
            return _failed(exc)


def _judged(found: object) -> Result:
    return Result(Status.HEALTHY if found is None or found else Status.UNHEALTHY)


def _failed(exc: Exception) -> Result:
    """The class of the exception only: its text may hold an address or a secret, and probes are answered to anyone."""
    return Result(Status.UNHEALTHY, type(exc).__name__)
