"""Several processes on one listening socket: started, replaced when they die, drained together, renewed one by one."""

from __future__ import annotations

import logging
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sage_agent.server.changes import Changes
from sage_agent.server.line import hear, pair, say

_log = logging.getLogger("sage_agent")
_LONG_ENOUGH: Final = 10.0
"""A worker that has run for so many seconds has not failed to start: the next one is started at once."""
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_MOST_FAILURES: Final = 10
"""So many workers that ended before they were ready, one after the other, while no other works: two minutes of pauses. Then whoever
started the supervisor has to know."""
_MOST_RENEWALS: Final = 3
"""The same for a renewal, during which the old ones work."""
_START_SECONDS: Final = 60.0
"""How long a worker may take to be ready before it is given up."""
_HUNG_SECONDS: Final = 30.0
"""How long a worker, which says every second that its event loop goes round, may be silent until it is taken to hang for good."""
_TICK: Final = 0.1


@dataclass(slots=True)
class Worker:
    """A process: its end of the line to it, when it was started, and whether it has said that it is ready."""

    popen: subprocess.Popen[bytes]
    line: socket.socket
    started: float
    ready: bool = False
    heard: float = 0.0
    """When it last said something."""
    told: float | None = None
    """When it was told to stop, if it was."""
    silent: bool = False
    """Whether its end of the line is closed: it is ending."""


@dataclass(slots=True)
class Crew:
    """Keeps `count` workers at work. `command` starts one; it finds the socket and the line by the variables it is given.

    A worker that has been told to stop is killed after `patience` seconds.
    """

    command: Sequence[str]
    count: int
    listener: int
    environ: Mapping[str, str]
    patience: float = 60.0
    clock: Callable[[], float] = time.monotonic
    _workers: list[Worker] = field(default_factory=list)
    _changes: Changes = field(default_factory=Changes)
    _stopping: bool = False
    _renewing_since: float | None = None
    _pause: float = 0.0
    _not_before: float = 0.0
    _failures: int = 0
    _ever_ready: bool = False
    _gave_up: bool = False
    _signals: list[int] = field(default_factory=list)

    def run(self) -> int:
        """Supervise until SIGTERM or SIGINT and every worker has drained; the exit code.

        SIGHUP renews the workers one by one. Where the first workers end before one of them was ready, or later ones again and again,
        the exit code of the last is returned.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: self._signals.append(number))
        code = 0
        try:
            while not (self._stopping and not self._workers):
                self._take_signals()
                code = self._bury() or code
                if code and not self._ever_ready:
                    self._stop()
                self._give_up()
                if not self._stopping:
                    self._fill()
                    self._go_on_renewing()
                self._listen(_TICK)
                self._lose_patience()
        finally:
            self._kill()
        return 0 if self._ever_ready and not self._gave_up else code

    def _take_signals(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            if number == signal.SIGHUP:
                _log.info("workers are renewed one by one")
                self._renewing_since = self.clock()
                self._failures = 0
                self._changes.forget()
            else:
                self._stop()

    def _stop(self) -> None:
        """Drain every worker; told twice, they cut what is left.

        Only this tells them to cut: a terminal, and systemd, signal the workers, too, and would otherwise be the second to do so.
        """
        for worker in self._workers:
            if self._stopping:
                say(worker.line, {"say": "cut"})
            self._tell(worker)
        self._stopping = True

    def _tell(self, worker: Worker) -> None:
        worker.told = worker.told or self.clock()
        worker.popen.send_signal(signal.SIGTERM)

    def _bury(self) -> int:
        """Forget workers that have ended; the exit code of one that was not told to."""
        code = 0
        for worker in [one for one in self._workers if one.popen.poll() is not None]:
            self._workers.remove(worker)
            self._changes.without(worker.popen.pid)
            worker.line.close()
            if worker.told is not None:
                continue
            code = worker.popen.returncode or 1
            self._fall_back(ran=self.clock() - worker.started, ready=worker.ready)
            _log.error("a worker has ended", extra={"worker": worker.popen.pid, "exit_code": worker.popen.returncode, "pause": self._pause})
        return code

    def _fall_back(self, *, ran: float, ready: bool) -> None:
        """Wait before the next start: the longer, the more have failed."""
        self._failures += not ready
        self._pause = 0.0 if ran >= _LONG_ENOUGH else min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        self._not_before = self.clock() + self._pause

    def _give_up(self) -> None:
        """Do not start for ever what ends at once: the settings or the code are broken, and were not when it began."""
        if self._renewing_since is not None and self._failures >= _MOST_RENEWALS:
            self._renewing_since = None
            _log.error("workers are not renewed; the ones before stay", extra={"failures": self._failures})
        if self._failures >= _MOST_FAILURES and not self._stopping and not any(worker.ready for worker in self._workers):
            self._gave_up = True
            _log.error("workers cannot be started any more", extra={"failures": self._failures})
            self._stop()

    def _may_start(self) -> bool:
        return self.clock() >= self._not_before

    def _staying(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.told is None]

    def _fill(self) -> None:
        while len(self._staying()) < self.count and self._may_start():
            self._start()

    def _go_on_renewing(self) -> None:
        """Start a new worker beside the old ones, once it is ready tell an old one to stop, and once that has ended do the next."""
        since, staying = self._renewing_since, self._staying()
        if since is None or len(staying) < len(self._workers):
            return
        old = [worker for worker in staying if worker.started < since]
        if not old:
            self._renewing_since = None
            _log.info("workers are renewed")
        elif all(worker.ready for worker in staying if worker.started >= since):
            if len(staying) > self.count:
                self._tell(old[0])
            elif self._may_start():
                self._start()

    def _start(self) -> None:
        mine, theirs = pair()
        environ = {**self.environ, "SAGE_LISTEN_FD": str(self.listener), "SAGE_SUPERVISOR_FD": str(theirs.fileno())}
        try:
            popen = subprocess.Popen(list(self.command), env=environ, pass_fds=(self.listener, theirs.fileno()))
        except OSError as exc:  # no memory or process left, say: those that run go on
            mine.close()
            if not self._ever_ready:
                raise
            self._fall_back(ran=0.0, ready=False)
            _log.error("a worker cannot be started", extra={"reason": exc.strerror, "pause": self._pause})
            return
        finally:
            theirs.close()
        self._workers.append(Worker(popen, mine, self.clock()))

    def _listen(self, seconds: float) -> None:
        """Wait for what workers say, for so long at most."""
        lines = {worker.line: worker for worker in self._workers if not worker.silent}
        if not lines:
            time.sleep(seconds)
            return
        for line in select.select(list(lines), [], [], seconds)[0]:
            self._hear(lines[line])
        self._changes.tell(self.clock())

    def _hear(self, worker: Worker) -> None:
        said = hear(worker.line)
        worker.heard = self.clock()
        if said is None:
            worker.silent = True
        elif said.get("say") == "ready":
            worker.ready = self._ever_ready = True
            self._failures = 0
            self._changes.catch_up(worker.line)
        elif said.get("say") == "changed":
            self._changes.done(said, worker.popen.pid)
        elif said.get("say") == "change" and said["name"] == "drain":
            count = len(self._staying())
            self._stop()
            say(worker.line, {"say": "reach", "number": said["number"], "asked": count, "took": count})
        elif said.get("say") == "change":
            lines = {one.popen.pid: one.line for one in self._staying() if one.ready}
            self._changes.ask(said, worker.line, lines, now=self.clock())

    def _lose_patience(self) -> None:
        for worker, why in self._overdue():
            _log.error(why, extra={"worker": worker.popen.pid})
            worker.popen.kill()
            worker.popen.wait()

    def _overdue(self) -> Iterator[tuple[Worker, str]]:
        for worker in self._workers:
            if worker.told is not None and self.clock() - worker.told > self.patience:
                yield worker, "a worker did not stop in time"
            elif worker.told is None and not worker.ready and self.clock() - worker.started > _START_SECONDS:
                yield worker, "a worker was not ready in time"
            elif worker.told is None and worker.ready and self.clock() - worker.heard > _HUNG_SECONDS:
                yield worker, "a worker hangs"

    def _kill(self) -> None:
        for worker in self._workers:
            worker.popen.kill()
            worker.popen.wait()


def share_of(total: int, workers: int) -> int:
    """What one of so many workers gets of a bound; together no less than it."""
    return -(-total // workers)
