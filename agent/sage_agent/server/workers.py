"""Several processes on one listening socket: started, replaced when they die, drained together, renewed one by one."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Final

_log = logging.getLogger("sage_agent")
READY: Final = b"ready\n"
"""What a worker says to its supervisor once it takes connections."""
_LONG_ENOUGH: Final = 10.0
"""A worker that has run for so many seconds has not failed to start: the next one is started at once."""
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_START_SECONDS: Final = 60.0
"""How long a worker may take to be ready before it is given up."""
_TICK: Final = 0.1


@dataclass(slots=True)
class Worker:
    """A process: its end of the line to it, when it was started, and whether it has said that it is ready."""

    popen: subprocess.Popen[bytes]
    line: socket.socket
    started: float
    ready: bool = False
    told: bool = False
    """Whether it was told to stop."""


@dataclass(slots=True)
class Crew:
    """Keeps `count` workers at work. `command` starts one; it finds the socket and the line by the variables it is given."""

    command: Sequence[str]
    count: int
    listener: int
    environ: Mapping[str, str]
    clock: Callable[[], float] = time.monotonic
    _workers: list[Worker] = field(default_factory=list)
    _stopping: bool = False
    _renewing_since: float | None = None
    _pause: float = 0.0
    _not_before: float = 0.0
    _ever_ready: bool = False
    _signals: list[int] = field(default_factory=list)

    def run(self) -> int:
        """Supervise until SIGTERM or SIGINT and every worker has drained; the exit code.

        SIGHUP renews the workers one by one. Where the first workers end before one of them was ready, their exit code is returned.
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
                if not self._stopping:
                    self._fill()
                    self._go_on_renewing()
                self._listen(_TICK)
        finally:
            self._kill()
        return 0 if self._ever_ready else code

    def _take_signals(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            if number == signal.SIGHUP:
                _log.info("workers are renewed one by one")
                self._renewing_since = self.clock()
            else:
                self._stop()

    def _stop(self) -> None:
        """Drain every worker; told twice, they cut what is left."""
        self._stopping = True
        for worker in self._workers:
            self._tell(worker)

    def _tell(self, worker: Worker) -> None:
        worker.told = True
        worker.popen.send_signal(signal.SIGTERM)

    def _bury(self) -> int:
        """Forget workers that have ended; the exit code of one that was not told to."""
        code = 0
        for worker in [one for one in self._workers if one.popen.poll() is not None]:
            self._workers.remove(worker)
            worker.line.close()
            if worker.told:
                continue
            code = worker.popen.returncode or 1
            ran = self.clock() - worker.started
            self._pause = 0.0 if ran >= _LONG_ENOUGH else min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
            self._not_before = self.clock() + self._pause
            _log.error("a worker has ended", extra={"worker": worker.popen.pid, "exit_code": worker.popen.returncode, "pause": self._pause})
        return code

    def _fill(self) -> None:
        while sum(not worker.told for worker in self._workers) < self.count and self.clock() >= self._not_before:
            self._start()

    def _go_on_renewing(self) -> None:
        """Start a new worker beside the old ones, once it is ready tell an old one to stop, and once that has ended do the next."""
        since = self._renewing_since
        if since is None or any(worker.told for worker in self._workers):
            return
        staying = [worker for worker in self._workers if not worker.told]
        old = [worker for worker in staying if worker.started < since]
        if not old:
            self._renewing_since = None
            _log.info("workers are renewed")
        elif all(worker.ready for worker in staying if worker.started >= since):
            if len(staying) > self.count:
                self._tell(old[0])
            else:
                self._start()

    def _start(self) -> None:
        mine, theirs = socket.socketpair()
        environ = {**self.environ, "SAGE_LISTEN_FD": str(self.listener), "SAGE_SUPERVISOR_FD": str(theirs.fileno())}
        try:
            popen = subprocess.Popen(list(self.command), env=environ, pass_fds=(self.listener, theirs.fileno()))
        finally:
            theirs.close()
        mine.setblocking(False)
        self._workers.append(Worker(popen, mine, self.clock()))

    def _listen(self, seconds: float) -> None:
        """Wait for what workers say, for so long at most."""
        lines = {worker.line: worker for worker in self._workers if not worker.ready}
        if not lines:
            time.sleep(seconds)
            return
        for line in select.select(list(lines), [], [], seconds)[0]:
            try:
                said = line.recv(64)
            except OSError:
                said = b""
            if said == READY:
                lines[line].ready = self._ever_ready = True
            elif not said and lines[line].popen.poll() is None:
                time.sleep(_TICK)  # it is ending
        for worker in lines.values():
            if not worker.ready and self.clock() - worker.started > _START_SECONDS and not worker.told:
                _log.error("a worker was not ready in time", extra={"worker": worker.popen.pid})
                worker.popen.kill()

    def _kill(self) -> None:
        for worker in self._workers:
            worker.popen.kill()
            worker.popen.wait()


def share_of(total: int, workers: int) -> int:
    """What one of so many workers gets of a bound; together no less than it."""
    return -(-total // workers)


def supervisor_line(environ: MutableMapping[str, str]) -> socket.socket | None:
    """The line to the supervisor of this worker; None in a process that has none. No child of it is to believe that it has one."""
    number = environ.pop("SAGE_SUPERVISOR_FD", "")
    if not number.isdigit():
        return None
    line = socket.socket(fileno=int(number))
    os.set_inheritable(line.fileno(), False)
    line.setblocking(False)
    return line
