"""A program on a terminal of its own, as a person would see it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Terminal:
    """The program and everything it has written so far; `frames` are what it has drawn, each from the top of the screen on."""

    process: subprocess.Popen[bytes]
    end: int
    text: str = ""
    _raw: bytearray = field(default_factory=bytearray)

    @property
    def frames(self) -> list[str]:
        """Whole screens, the last of which may still be coming."""
        return self.text.split("\x1b[H")[1:]

    def until(self, done: Callable[[], bool], *, seconds: float = 30.0) -> None:
        """Read until something is there. Raises AssertionError where it does not come."""
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, self.text[-3000:]
            self.read()

    def read(self) -> bool:
        """What has come, within a fifth of a second; False once the program has ended and all is read."""
        if not select.select([self.end], [], [], 0.2)[0]:
            return self.process.poll() is None
        try:
            part = os.read(self.end, 65536)
        except OSError:  # what a terminal says once nobody has the other end
            return False
        self._raw += part
        self.text = self._raw.decode(errors="replace")
        return bool(part)

    def resize(self, lines: int, columns: int) -> None:
        """Make the window so large."""
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


@contextmanager
def on_terminal(command: Sequence[str], *, environ: Mapping[str, str]) -> Iterator[Terminal]:
    """The program on a terminal of 24 lines; it is killed where it still runs when the block ends."""
    end, theirs = pty.openpty()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, **environ}, start_new_session=True)
    os.close(theirs)
    terminal = Terminal(process, end)
    terminal.resize(24, 80)
    try:
        yield terminal
    finally:
        process.kill()
        process.wait()
        os.close(end)
