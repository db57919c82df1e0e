"""Child processes that are told to end when their parent dies, write to a log file, and are stopped by their own pid."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sage_obs.errors import UnavailableError

_PR_SET_PDEATHSIG: Final = 1
_LISTEN_FD: Final = 3
"""Where a service finds an inherited listening socket: SD_LISTEN_FDS_START of sd_listen_fds(3)."""


@dataclass(slots=True)
class Process:
    """A running child. `started_at` is Unix time; `log` receives its stdout and stderr, from byte `log_offset` on."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    log_offset: int
    started_at: float = field(default_factory=time.time)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self.popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self.popen.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; a child that is already gone is left alone."""
        if self.exit_code is None:
            self.popen.send_signal(number)

    def tail(self, lines: int = 5) -> str:
        """The last lines it wrote to its log."""
        try:
            written = self.log.read_bytes()[self.log_offset :]
        except OSError:
            return ""
        return "\n".join(written.decode(errors="replace").splitlines()[-lines:])

    def ending(self) -> str:
        """How it ended, in words: `exited with code 1`, `was ended by SIGKILL`."""
        code = self.exit_code
        if code is None:
            return "still runs"
        return f"exited with code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"

    def died(self) -> UnavailableError:
        """The error that says how it ended, with the end of its log."""
        tail = self.tail()
        words = f" Its last words:\n{tail}\n" if tail else ""
        return UnavailableError(f"{self.name} (pid {self.pid}) {self.ending()}.{words}", hint=f"Log: {self.log}")


def spawn(
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    listener: int | None = None,
    cwd: Path | None = None,
) -> Process:
    """Start a child in a process group of its own; it gets SIGTERM if this process dies, however it dies.

    `listener` is the descriptor of a listening socket to hand over as systemd's socket activation does. Call it from the main
    thread: the kernel ties the child's life to the thread that started it. Raises UnavailableError if the command cannot be run.
    """
    _occupy_listen_fd()
    variables = {**os.environ, **(environment or {}), **({"LISTEN_FDS": "1"} if listener is not None else {})}
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("ab") as output:
            offset = output.tell()
            popen = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=variables,
                cwd=cwd,
                pass_fds=(_LISTEN_FD,) if listener is not None else (),
                start_new_session=True,
                preexec_fn=_prepare(listener, os.getpid()),  # noqa: PLW1509 - only system calls happen there
            )
    except OSError as exc:
        raise UnavailableError(f"Cannot start {name}: {exc.strerror} ({command[0]}).") from exc
    return Process(name, popen, log, offset)


def _prepare(listener: int | None, parent: int) -> Callable[[], None]:
    """What the child does between fork and exec."""
    libc = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the parent died before the line above
            os._exit(1)
        if listener is not None:
            os.dup2(listener, _LISTEN_FD)

    return prepare


def _occupy_listen_fd() -> None:
    """Keep descriptor 3 taken, so that the pipe by which subprocess reports errors is never the one that is replaced."""
    try:
        os.fstat(_LISTEN_FD)
    except OSError:
        opened = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        if opened != _LISTEN_FD:
            os.dup2(opened, _LISTEN_FD, inheritable=False)
            os.close(opened)


def stop(processes: Iterable[Process], *, grace: float) -> None:
    """SIGTERM to all at once, then SIGKILL to those left after `grace` seconds; returns when all are gone."""
    children = [process for process in processes if process.exit_code is None]
    for process in children:
        process.signal(signal.SIGTERM)
    deadline = time.monotonic() + grace
    for process in children:
        try:
            process.popen.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its own children too: `spawn` has made it the leader of a group
            process.popen.wait()
