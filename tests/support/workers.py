"""Services of several processes, and a scraper that never looks away."""

from __future__ import annotations

import http.client
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from sage_obs.processes import Process, spawn, stop
from tests.support.ports import free_port

_SECONDS = 30.0
Series = tuple[str, tuple[tuple[str, str], ...]]
ONLY_RISE = ("_total", "_bucket", "_count", "_sum")


def wait_until(what: Callable[[], bool], *, seconds: float = _SECONDS) -> None:
    """Until it is so. Raises AssertionError where it does not come to be."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.02)


def get(port: int, path: str) -> str | None:
    """A page, None where nobody answers it in full."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
    except (OSError, http.client.HTTPException):
        return None
    else:
        return body if answer.status == http.client.OK else None
    finally:
        connection.close()


def samples(page: str) -> dict[Series, float]:
    """The series of a page."""
    families = text_string_to_metric_families(page)
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


def total(found: Mapping[Series, float], name: str, **labels: str) -> float:
    """The sum over the series of a name that have these labels."""
    return sum(value for (series, has), value in found.items() if series == name and labels.items() <= dict(has).items())


@dataclass(slots=True)
class Scraper:
    """Scrapes a port without a break. `wrong` is what went backwards or away; `longest` the longest time without a page, in seconds."""

    port: int
    last: dict[Series, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    pages: int = 0
    longest: float = 0.0
    _stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Until it is stopped."""
        seen = 0.0
        while not self._stopped.wait(0.02):
            page = get(self.port, "/metrics")
            now = time.monotonic()
            if page is not None:
                self.longest = max(self.longest, now - seen) if seen else 0.0
                seen = now
                self._compare(samples(page))

    def _compare(self, found: dict[Series, float]) -> None:
        self.pages += 1
        for series, before in self.last.items():
            if series[0].startswith("sage_") and series[0].endswith(ONLY_RISE) and found.get(series, -1.0) < before:
                self.wrong.append(f"{series}: {before} -> {found.get(series)}")
        self.last = found

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()


@contextmanager
def scraping(port: int) -> Iterator[Scraper]:
    """A scraper in a thread, from its first page to one after the last thing done meanwhile; nothing may have gone backwards."""
    scraper = Scraper(port)
    thread = threading.Thread(target=scraper.run)
    thread.start()
    try:
        wait_until(lambda: scraper.pages > 0)
        yield scraper
        done = scraper.pages
        wait_until(lambda: scraper.pages > done + 1)
    finally:
        scraper.stop()
        thread.join()
    assert not scraper.wrong, scraper.wrong[:5]


@dataclass(frozen=True, slots=True)
class Service:
    """A server with workers. Its page /hit counts one call of a model and answers with the worker's pid."""

    process: Process
    port: int
    metrics_port: int

    def hit(self) -> int:
        """One request that is answered; by whom."""
        deadline = time.monotonic() + _SECONDS
        while (page := get(self.port, "/hit")) is None:
            assert time.monotonic() < deadline, self.process.tail(20)
            time.sleep(0.02)
        return int(page)

    def scrape(self) -> dict[Series, float]:
        """A page of its metrics, waited for."""
        wait_until(lambda: get(self.metrics_port, "/metrics") is not None)
        return samples(get(self.metrics_port, "/metrics") or "")


@contextmanager
def serving(folder: Path, command: Sequence[str], source: str, **environ: str) -> Iterator[Service]:
    """The program behind a server: {port} in the command is the service's."""
    (folder / "service.py").write_text(source)
    port, metrics_port = free_port(), free_port()
    variables = {
        "SAGE_METRICS_HOST": "127.0.0.1",
        "SAGE_METRICS_PORT": str(metrics_port),
        "SAGE_LOG_OUTPUT": str(folder / "lines"),
        "HOME": str(folder),  # gunicorn keeps a socket there
        **environ,
    }
    arguments = [sys.executable, *(part.format(port=port) for part in command)]
    process = spawn("service", arguments, log=folder / "log", environment={**variables, "PORT": str(port)}, cwd=folder)
    try:
        yield Service(process, port, metrics_port)
    finally:
        stop([process], grace=10)


def kill(pid: int) -> None:
    """End a worker without a word, and wait until it is no more."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False
