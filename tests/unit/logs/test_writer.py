from __future__ import annotations

import io
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import sage_obs
from sage_obs.conventions import LOGS_DROPPED
from sage_obs.errors import UnavailableError
from sage_obs.logs.writer import DescriptorSink, StreamSink, Writer, open_sink
from tests.support.metrics import value

Start = Callable[..., sage_obs.Handle]


class Gate:
    """A sink that waits until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.written = b""

    def write(self, data: bytes) -> None:
        """Wait, then take."""
        self.open.wait()
        self.written += data

    def close(self) -> None:
        """Nothing to close."""


def test_a_full_queue_drops_and_counts_and_never_blocks() -> None:
    """With a sink that hangs, what is over the capacity is lost at once and reported; the rest arrives in order."""
    gate, dropped = Gate(), [0.0]

    def count(lines: float) -> None:
        dropped[0] += lines

    writer = Writer(gate, on_drop=count, capacity=10)
    writer.write(b"first\n", urgent=True)
    assert not writer.flush(0.05)
    for number in range(100):
        writer.write(b"%d\n" % number, urgent=False)
    gate.open.set()
    assert writer.flush(5)
    lines = gate.written.split(b"\n")[:-1]
    assert len(lines) + dropped[0] == 101
    assert lines == [b"first", *(b"%d" % number for number in range(len(lines) - 1))]
    writer.close(5)


def test_a_sink_that_fails_loses_its_lines_and_counts_them(tmp_path: Path) -> None:
    """A closed descriptor raises nothing; the writer goes on."""
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    dropped: list[float] = []
    writer = Writer(DescriptorSink(descriptor, owned=False), on_drop=dropped.append)
    os.close(descriptor)
    writer.write(b"lost\n", urgent=True)
    assert writer.flush(5)
    assert dropped == [1]
    writer.close(5)


def test_a_reader_that_reads_nothing_does_not_stop_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A non-blocking pipe that is full drops lines instead of waiting for ever."""
    monkeypatch.setattr("sage_obs.logs.writer._STUCK_SECONDS", 0.01)
    reader, pipe = os.pipe()
    os.set_blocking(pipe, False)
    dropped: list[float] = []
    writer = Writer(DescriptorSink(pipe, owned=True), on_drop=dropped.append)
    writer.write(b"x" * 1_000_000, urgent=True)
    assert writer.flush(5)
    assert dropped == [1]
    writer.close(5)
    os.close(reader)


def test_a_stream_without_a_descriptor_is_written_to() -> None:
    """A notebook's stdout gets its lines."""
    stream = io.StringIO()
    sink = open_sink("stdout", stream_of=lambda _: stream)
    assert isinstance(sink, StreamSink)
    sink.write("grün\n".encode())
    assert stream.getvalue() == "grün\n"


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """The error says which file, why, and which setting."""
    with pytest.raises(UnavailableError, match=r"No such file.*SAGE_LOG_OUTPUT"):
        open_sink(str(tmp_path / "none" / "log"), stream_of=lambda _: io.StringIO())


def test_lines_after_the_end_are_written_at_once(tmp_path: Path) -> None:
    """What is logged after the writer has finished, at exit, is not lost."""
    path = tmp_path / "log"
    writer = Writer(open_sink(str(path), stream_of=lambda _: io.StringIO()), on_drop=lambda _: None)
    writer.write(b"one\n", urgent=False)
    assert writer.finish(5)
    writer.write(b"two\n", urgent=False)
    assert path.read_bytes() == b"one\ntwo\n"


def test_the_root_logger_comes_back_as_it_was(instrument: Start, tmp_path: Path) -> None:
    """Handlers and level return; a handler that somebody added meanwhile stays."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    instrument(log_output=str(tmp_path / "log"), log_level="debug")
    assert not set(before) & set(root.handlers)
    assert root.level == logging.DEBUG
    theirs = logging.NullHandler()
    root.addHandler(theirs)
    sage_obs.uninstrument()
    assert root.handlers == [*before, theirs]
    assert root.level == level
    root.removeHandler(theirs)


def test_every_line_is_out_when_the_layer_stops(instrument: Start, tmp_path: Path) -> None:
    """uninstrument() loses nothing that was logged before it, and drops are 0."""
    instrument(log_output=str(tmp_path / "log"))
    for number in range(500):
        logging.getLogger("x").info("line %d", number)
    assert value(LOGS_DROPPED) == 0
    sage_obs.uninstrument()
    assert (tmp_path / "log").read_text().count('"message":"line ') == 500
