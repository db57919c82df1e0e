"""The process's state of health: its checks, its startup and whether it is draining."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from typing import Any, Final

from sage_obs import loops
from sage_obs.conventions import OVERALL, Probe
from sage_obs.errors import ConfigError
from sage_obs.health.checks import Check, CheckFunction, Result, Status

HUNG_SECONDS: Final = 5.0
"""An event loop that does not go round for so long serves nobody: whatever holds it, a new process is better."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A probe's answer: the HTTP status and the JSON body."""

    status: int
    body: dict[str, Any]

    @property
    def health(self) -> Status:
        """The status in words."""
        return Status(self.body["status"])


class Board:
    """Three questions about a process.

    Liveness depends on the application's event loop going round and on nothing else, readiness on the registered checks, startup on the
    application having begun to serve. `served` is whether the application's own port answers probes it does not know.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._checks: dict[str, Check] = {}
        self._started_at: float | None = None
        self._app_expected = False
        self._draining = False
        self.served = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked_at: float | None = None

    def register(self, name: str, function: CheckFunction, *, critical: bool, timeout: float) -> None:
        """Add a check, or replace the one of that name. Raises ConfigError for the name of the probe's own answer."""
        if name == OVERALL:
            raise ConfigError(f"A health check cannot be named `{OVERALL}`: that is the probe's own answer.", hint="Choose another name.")
        self._checks = {**self._checks, name: Check(name, function, critical=critical, timeout=timeout, clock=self._clock)}

    def unregister(self, name: str) -> None:
        """Take a check away."""
        self._checks = {key: check for key, check in self._checks.items() if key != name}

    def begin(self) -> None:
        """Count startup from now on; instrument() does."""
        self._began = self._clock()

    def expect_app(self) -> None:
        """Startup waits for an application from now on: there is one, or a library to write one with."""
        self._app_expected = True

    def started(self) -> None:
        """Startup is complete; the first call counts."""
        if self._started_at is None:
            self._started_at = self._clock()

    def drain(self) -> None:
        """No longer ready, for good."""
        self._draining = True

    def seen(self, loop: asyncio.AbstractEventLoop) -> None:
        """The application serves, on this event loop: startup is complete, and its asynchronous checks run there."""
        self._loop = loop
        loops.seen(loop)
        if self._started_at is None:
            self.started()

    def seen_here(self) -> None:
        """The application serves here: on asyncio's event loop, or on another library's, of which nothing more is known."""
        if (loop := _loop_here()) is None:
            self.started()
        else:
            self.seen(loop)

    @property
    def serving(self) -> bool:
        """Whether the loop that was seen last still runs: requests need not ask for theirs, which costs a system call."""
        return self._loop is not None and self._loop.is_running()

    def liveness(self) -> Answer:
        """The process answers, and so did its event loop when it was asked last; one that hangs is found by the second probe."""
        silent = self._silent_for()
        if silent > HUNG_SECONDS:
            said = {"status": Status.UNHEALTHY.value, "message": f"the event loop has not gone round for {silent:.1f} s"}
            return Answer(503, {"name": Probe.LIVENESS.value, **said})
        return _alive()

    def _silent_for(self) -> float:
        """How long the loop that serves has owed an answer, in seconds; it is asked anew once it has given one. From another thread."""
        loop, asked = self._loop, self._asked_at
        if loop is None or not loop.is_running():
            self._asked_at = None
            return 0.0
        if asked is not None:
            return self._clock() - asked
        self._asked_at = self._clock()
        try:
            loop.call_soon_threadsafe(self._answered)
        except RuntimeError:  # it was closed a moment ago
            self._asked_at = None
        return 0.0

    def _answered(self) -> None:
        self._asked_at = None

    def startup(self) -> Answer:
        """503 with the time so far until startup is complete, then 200 with the time it took; milliseconds."""
        if self._started_at is None and self._app_expected:
            elapsed = _milliseconds(self._clock() - self._began)
            return Answer(503, {"name": Probe.STARTUP.value, "status": Status.UNHEALTHY.value, "details": {"elapsed_ms": elapsed}})
        took = _milliseconds(max(0.0, (self._started_at or self._began) - self._began))
        return Answer(200, {"name": Probe.STARTUP.value, "status": Status.HEALTHY.value, "details": {"startup_duration_ms": took}})

    def start_checks(self) -> list[Future[Result]]:
        """Begin a run of every check."""
        return [check.start(self._loop) for check in self._checks.values()]

    def patience(self) -> float:
        """How long readiness may have to be waited for, in seconds: the longest timeout."""
        return max((check.timeout for check in self._checks.values()), default=0.0)

    def results(self) -> dict[str, Result]:
        """What is known of each check now; a failing check that is not critical degrades."""
        return {name: _weighed(check) for name, check in self._checks.items()}

    def readiness_now(self) -> Answer:
        """Readiness by what is known now, without waiting."""
        checks = [_described(name, result) for name, result in self.results().items()]
        status = self._worst()
        body: dict[str, Any] = {"name": Probe.READINESS.value, "status": status.value}
        if self._draining:
            body["message"] = "draining"
        return Answer(503 if status is Status.UNHEALTHY else 200, {**body, "details": {"checks": checks}})

    def readiness(self, *, wait: float | None = None) -> Answer:
        """Readiness after running the checks, waiting at most `wait` seconds or, if None, their timeouts."""
        wait_for(self.start_checks(), timeout=self.patience() if wait is None else wait)
        return self.readiness_now()

    async def readiness_async(self) -> Answer:
        """The same from inside an event loop, which is not held up; in one that is not asyncio's, by what is known already."""
        if _loop_here() is None:
            return self.readiness(wait=0)
        if runs := self.start_checks():
            await asyncio.wait([asyncio.wrap_future(run) for run in runs], timeout=self.patience())
        return self.readiness_now()

    def answer(self, probe: Probe) -> Answer:
        """The answer of a probe, waited for."""
        return {Probe.LIVENESS: self.liveness, Probe.READINESS: self.readiness, Probe.STARTUP: self.startup}[probe]()

    async def answer_async(self, probe: Probe) -> Answer:
        """The answer of a probe from inside an event loop."""
        if probe is Probe.LIVENESS:
            return _alive()  # the loop that says so goes round
        return await self.readiness_async() if probe is Probe.READINESS else self.answer(probe)

    def _worst(self) -> Status:
        found = {result.status for result in self.results().values()}
        if self._draining or Status.UNHEALTHY in found:
            return Status.UNHEALTHY
        return Status.DEGRADED if Status.DEGRADED in found else Status.HEALTHY


def _alive() -> Answer:
    return Answer(200, {"name": Probe.LIVENESS.value, "status": Status.HEALTHY.value})


def _weighed(check: Check) -> Result:
    result = check.result()
    if result.status is Status.UNHEALTHY and not check.critical:
        return Result(Status.DEGRADED, result.message)
    return result


def _described(name: str, result: Result) -> dict[str, str]:
    described = {"name": name, "status": result.status.value}
    return {**described, "message": result.message} if result.message else described


def _loop_here() -> asyncio.AbstractEventLoop | None:
    """The loop of asyncio's that runs here, if any: hypercorn can serve with trio."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)


class _Process:
    __slots__ = ("board",)

    def __init__(self) -> None:
        self.board = Board()


_process: Final = _Process()


def board() -> Board:
    """The process's board."""
    return _process.board


def reset() -> None:
    """A new board; for tests."""
    _process.board = Board()
