"""Profiles fetched from servers that mean no good."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sage_obs.errors import ConfigError, UnavailableError
from sage_obs.profiling import fetch

_ENDS = threading.Event()


class _Server(BaseHTTPRequestHandler):
    """Answers by what stands before /debug/pprof/."""

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        self.send_response(503 if kind == "refuses" else 200)
        self.end_headers()
        with suppress(OSError):  # the client has left
            _ANSWERS[kind](self.wfile.write)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing is worth a line."""


def _drips(write: Callable[[bytes], object]) -> None:
    while not _ENDS.wait(0.05):
        write(b"x")


def _floods(write: Callable[[bytes], object]) -> None:
    while not _ENDS.is_set():
        write(b"x" * 65536)


_ANSWERS: dict[str, Callable[[Callable[[bytes], object]], object]] = {
    "drips": _drips,
    "floods": _floods,
    "lies": lambda write: write(b"<html>"),
    "refuses": lambda write: write(b"another day\xff\n"),
}


@contextmanager
def _serving() -> Iterator[str]:
    _ENDS.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            _ENDS.set()
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("drips", r"did not end within 0\.5 s"),
        ("floods", "more than 1 MiB came"),
        ("lies", "is no profile"),
        ("refuses", "answers 503: another day"),
    ],
)
def test_a_bad_answer_is_a_sentence_within_the_time(monkeypatch: pytest.MonkeyPatch, kind: str, why: str) -> None:
    """Neither one that never ends, nor one that is too large, nor what is no profile."""
    monkeypatch.setattr(fetch, "_MOST_BYTES", 1 << 20)
    with _serving() as url:
        began = time.monotonic()
        with pytest.raises(UnavailableError, match=why):
            fetch.from_url(f"{url}/{kind}/debug/pprof/", "heap", seconds=None, token="", patience=0.5 if kind == "drips" else 20)
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http:///debug"])
def test_what_is_no_address_is_an_error_of_the_settings(url: str) -> None:
    """With an example."""
    with pytest.raises(ConfigError, match="no address of a service"):
        fetch.from_url(url, "cpu", seconds=1, token="")
