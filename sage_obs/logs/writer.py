"""Where lines go: written in batches from a background thread, so that a slow disk or pipe never slows a request."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final, Protocol

from sage_obs.background import Batcher
from sage_obs.errors import UnavailableError

_CAPACITY: Final = 10_000
_BATCH: Final = 500
_DELAY_SECONDS: Final = 0.02
_STUCK_SECONDS: Final = 1.0
"""How long a reader that reads nothing is waited for before lines are dropped."""

_STDOUT, _STDERR = 1, 2
_CHILD_SECONDS: Final = 0.2
"""How long a forked child waits for an urgent line at most: beside a sink that works it takes microseconds."""


class Sink(Protocol):
    """Takes bytes and either writes them all or raises OSError or ValueError."""

    def write(self, data: bytes) -> None:
        """Write all of it."""

    def close(self) -> None:
        """Let go of what was opened for it."""


class DescriptorSink:
    """Writes to a file descriptor without the buffer of Python's streams, whose lock a dying thread would take along."""

    def __init__(self, descriptor: int, *, owned: bool) -> None:
        self.descriptor = descriptor
        self._owned = owned

    def write(self, data: bytes) -> None:
        """Write all of it; a non-blocking descriptor is waited for."""
        while data:
            try:
                data = data[os.write(self.descriptor, data) :]
            except BlockingIOError:
                if not select.select([], [self.descriptor], [], _STUCK_SECONDS)[1]:
                    raise

    def close(self) -> None:
        """Close the descriptor if it was opened here."""
        if self._owned:
            os.close(self.descriptor)


class StreamSink:
    """Writes to a text stream that has no file descriptor, such as a notebook's."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, data: bytes) -> None:
        """Write all of it."""
        self._stream.write(data.decode("utf-8", "replace"))
        self._stream.flush()

    def close(self) -> None:
        """Nothing was opened."""


def open_sink(output: str, *, stream_of: Callable[[str], IO[str]]) -> Sink:
    """The sink for `stdout`, `stderr` or a file's path. Raises UnavailableError where the file cannot be opened."""
    if output in {"stdout", "stderr"}:
        return _standard(stream_of(output))
    try:
        return DescriptorSink(os.open(Path(output), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), owned=True)
    except OSError as exc:
        raise UnavailableError(f"Cannot write logs to {output}: {exc.strerror}.", hint="Set SAGE_LOG_OUTPUT.") from exc


def _standard(stream: IO[str]) -> Sink:
    try:
        return DescriptorSink(stream.fileno(), owned=False)
    except (OSError, ValueError, AttributeError):
        return StreamSink(stream)


class Writer:
    """Queues lines for a sink. `on_drop` hears how many were lost, to a full queue or a sink that fails."""

    def __init__(self, sink: Sink, *, on_drop: Callable[[float], None], capacity: int = _CAPACITY) -> None:
        self._sink = sink
        self._on_drop = on_drop
        self._closed = False
        self._in_child = False
        self._batcher: Batcher[bytes] = Batcher(
            self._deliver, name="sage-obs-logs", capacity=capacity, batch=_BATCH, delay=_DELAY_SECONDS, on_drop=on_drop
        )

    def write(self, line: bytes, *, urgent: bool) -> None:
        """Queue a line; an urgent one goes out at once. After `close` it is written here and now.

        A forked child often ends in `os._exit`, where nobody flushes: there the caller waits a little for an urgent line to be out.
        """
        if self._closed:
            self._deliver([line])
        else:
            self._batcher.put(line, urgent=urgent)
            if urgent and self._in_child:
                self._batcher.flush(_CHILD_SECONDS)

    def leave_stdout(self) -> None:
        """Write to stderr what would go to stdout."""
        if isinstance(self._sink, DescriptorSink) and self._sink.descriptor == _STDOUT:
            self._sink = DescriptorSink(_STDERR, owned=False)

    def flush(self, timeout: float) -> bool:
        """Write what is queued, waiting at most `timeout` seconds."""
        return self._closed or self._batcher.flush(timeout)

    def finish(self, timeout: float) -> bool:
        """Write what is queued and stop the thread; later lines are written by whoever logs them."""
        done = self._batcher.close(timeout)
        self._closed = done
        return done

    def close(self, timeout: float) -> None:
        """Finish, and let go of the sink."""
        if self.finish(timeout):
            self._sink.close()

    def restart_after_fork(self) -> None:
        """Begin anew in a forked child."""
        self._in_child = True
        self._batcher.restart_after_fork()

    def _deliver(self, lines: list[bytes]) -> None:
        try:
            self._sink.write(b"".join(lines))
        except (OSError, ValueError):
            self._on_drop(len(lines))
