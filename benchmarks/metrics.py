"""What a metric costs to write and a page of them to render, ours beside the peers: `python benchmarks/metrics.py [--rounds N]`.

Every case runs once per round, one after the other, so that a busy machine slows all of them; medians over the rounds. Prints a table.
"""

from __future__ import annotations

import argparse
import atexit
import importlib.metadata
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder

from sage_obs.conventions import LLM_COST, REQUEST_DURATION, REQUESTS
from sage_obs.metrics.collector import StoreCollector
from sage_obs.metrics.exposition import expose
from sage_obs.metrics.folder import Folder
from sage_obs.metrics.member import Member, Running, started_at
from sage_obs.metrics.memory import CellFile
from sage_obs.metrics.merge import Merged
from sage_obs.metrics.store import Store
from sage_obs.metrics.wire import StoreText

_CALLS: Final = 20_000
_VALUES: Final = ("agent-1", "GET /orders/{id}", "http")
_LABELS: Final = ("agent_id", "operation", "protocol")
_SIZES: Final = (1_000, 10_000, 100_000)
_PROCESSES: Final = 8
_FORMATS: Final = {"text": "text/plain", "OpenMetrics": "application/openmetrics-text; version=1.0.0"}
_WHOLE: Final = 100
"""From here on a median is shown without decimals."""
_LIBRARIES: Final = ("prometheus_client", "opentelemetry-sdk", "orjson")


@dataclass(frozen=True, slots=True)
class Case:
    """Something to time, against the first of its group. `scale` makes its seconds the unit of the table."""

    group: str
    name: str
    run: Callable[[], object]
    scale: float


def _repeated(call: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(_CALLS):
            call()

    return run


def _writes() -> Iterator[Case]:
    """Cases in nanoseconds a call, the loop and the lambda included for all of them."""
    counter, histogram = "counter, ns", "histogram, ns"
    scale = 1e9 / _CALLS
    store = Store()
    cell = store.cell(REQUESTS, *_VALUES, "success")
    ours = store.histogram(REQUEST_DURATION, *_VALUES)
    yield Case(counter, "sage-obs cell", _repeated(lambda: cell.add(1.0)), scale)
    yield Case(histogram, "sage-obs cell", _repeated(lambda: ours.observe(0.2)), scale)
    shared = Store()
    shared.move(_file(_folder()))
    there, them = shared.cell(REQUESTS, *_VALUES, "success"), shared.histogram(REQUEST_DURATION, *_VALUES)
    yield Case(counter, "sage-obs cell in shared memory", _repeated(lambda: there.add(1.0)), scale)
    yield Case(histogram, "sage-obs cell in shared memory", _repeated(lambda: them.observe(0.2)), scale)
    registry = CollectorRegistry()
    theirs = Counter("requests", "Requests.", _LABELS, registry=registry)
    seconds = Histogram("seconds", "Seconds.", _LABELS, registry=registry, buckets=REQUEST_DURATION.buckets)
    bound, bound_seconds = theirs.labels(*_VALUES), seconds.labels(*_VALUES)
    yield Case(counter, "prometheus_client, child kept", _repeated(lambda: bound.inc(1.0)), scale)
    yield Case(histogram, "prometheus_client, child kept", _repeated(lambda: bound_seconds.observe(0.2)), scale)
    yield Case(counter, "prometheus_client, labels() each time", _repeated(lambda: theirs.labels(*_VALUES).inc(1.0)), scale)
    yield Case(histogram, "prometheus_client, labels() each time", _repeated(lambda: seconds.labels(*_VALUES).observe(0.2)), scale)
    yield from _otel(counter, histogram, scale)


def _otel(counter: str, histogram: str, scale: float) -> Iterator[Case]:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    meter = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False).get_meter("benchmark")
    requests, seconds = meter.create_counter("requests"), meter.create_histogram("seconds")
    attributes = dict(zip(_LABELS, _VALUES, strict=True))
    yield Case(counter, "OpenTelemetry, 3 attributes", _repeated(lambda: requests.add(1.0, attributes)), scale)
    yield Case(histogram, "OpenTelemetry, 3 attributes", _repeated(lambda: seconds.record(0.2, attributes)), scale)


def _scrapes() -> Iterator[Case]:
    """Cases in milliseconds a page: half of the series are counters, half belong to histograms."""
    for size in _SIZES:
        registry, ours = _filled(size)
        for name, accept in _FORMATS.items():
            encode = choose_encoder(accept)[0]
            group = f"scrape of {size:,} series as {name}, ms"
            yield Case(group, "sage-obs", _page(accept, registry, ours), 1e3)
            yield Case(group, "prometheus_client", _theirs(encode, registry), 1e3)


def _page(accept: str, registry: CollectorRegistry, ours: StoreCollector) -> Callable[[], object]:
    return lambda: expose(accept=accept, accept_encoding="", registry=registry, ours=ours)


def _theirs(encode: Callable[[CollectorRegistry], bytes], registry: CollectorRegistry) -> Callable[[], object]:
    return lambda: encode(registry)


def _together() -> Iterator[Case]:
    """The same page where several processes count the same series."""
    for size in _SIZES:
        folder = _folder()
        stores = [_fill(Store(budget=size), size) for _ in range(_PROCESSES)]
        files = [_file(folder) for _ in stores]
        for store, file in zip(stores, files, strict=True):
            store.move(file)
        merged = Merged(Folder(folder, None), Store(budget=size, overflows=False), own=files[0].member, on_error=print)
        text = StoreText(merged.store.families())
        yield Case(f"scrape of {_PROCESSES} processes of {size:,} series as text, ms", "sage-obs", _merging(merged, stores[0], text), 1e3)


def _merging(merged: Merged, own: Store, text: StoreText) -> Callable[[], object]:
    def run() -> object:
        merged.update(own, apart=False)
        return b"".join(text.render(openmetrics=False))

    return run


def _folder() -> Path:
    shm = Path("/dev/shm")  # noqa: S108 - where services share
    path = Path(tempfile.mkdtemp(dir=shm if shm.is_dir() else None))
    atexit.register(shutil.rmtree, path)
    return path


def _file(folder: Path) -> CellFile:
    pid = os.getpid()
    return CellFile(folder, Member.new(Running(started_at(pid) or 0, pid)))


def _filled(size: int) -> tuple[CollectorRegistry, StoreCollector]:
    registry, ours = CollectorRegistry(), StoreCollector(_fill(Store(budget=size), size), refresh=lambda: None)
    registry.register(ours)
    return registry, ours


def _fill(store: Store, size: int) -> Store:
    """About `size` series, whose values take up to 17 digits."""
    for number in range(size // 2):
        store.cell(LLM_COST, "openai", f"model-{number}").add(number * 0.001)
    for number in range(size // 2 // (len(REQUEST_DURATION.buckets) + 3)):
        child = store.histogram(REQUEST_DURATION, "agent-1", f"GET /orders/{number}", "http")
        for bound in REQUEST_DURATION.buckets:
            child.observe(bound * 0.7)
    return store


def _measure(cases: list[Case], rounds: int) -> dict[Case, float]:
    """The median of each case, in its unit."""
    times: dict[Case, list[float]] = {case: [] for case in cases}
    for case in cases:
        case.run()  # what is made once is not what is measured
    for _ in range(rounds):
        for case in cases:
            began = time.perf_counter()
            case.run()
            times[case].append((time.perf_counter() - began) * case.scale)
    return {case: statistics.median(taken) for case, taken in times.items()}


def _table(medians: dict[Case, float]) -> Iterator[str]:
    libraries = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES)
    yield f"{datetime.now(tz=UTC):%Y-%m-%d}, Python {platform.python_version()}, {libraries}"
    yield from ("", "| what | with | median | times ours |", "|---|---|---|---|")
    for group in dict.fromkeys(case.group for case in medians):
        rows = {case.name: median for case, median in medians.items() if case.group == group}
        ours, *_ = rows.values()
        for name, median in rows.items():
            yield f"| {group} | {name} | {median:,.{0 if median > _WHOLE else 1}f} | {median / ours:,.1f} |"


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print("\n".join(_table(_measure([*_writes(), *_scrapes(), *_together()], rounds))))


if __name__ == "__main__":
    main()
