from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
import uvloop
from prometheus_client import generate_latest

import sage_obs
from sage_obs import loops, testing
from sage_obs.conventions import EVENT_LOOP_LAG, GC_PAUSE, INTERNAL_ERRORS, MEMORY_LIMIT, RUNTIME_TASKS, RUNTIME_THREADS
from sage_obs.metrics.cells import HistogramCell
from sage_obs.runtime import component
from sage_obs.runtime.heartbeats import Heartbeats
from sage_obs.runtime.memory import memory_limit
from sage_obs.runtime.pauses import Pauses
from tests.support.asgi import answering, call
from tests.support.metrics import children, value

Start = Callable[..., sage_obs.Handle]
Loop = Callable[[], asyncio.AbstractEventLoop]
LOOPS = pytest.mark.parametrize("make", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
_marked: ContextVar[str] = ContextVar("marked", default="")


def _run(make: Loop, heartbeats: Heartbeats, work: Callable[[], object], until: Callable[[], bool]) -> None:
    """Do the work on a new loop that is watched, and go on until something is so."""

    async def main() -> None:
        heartbeats.watch(asyncio.get_running_loop())
        work()
        deadline = time.monotonic() + 20
        while not until():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(main())


@LOOPS
def test_a_loop_that_is_held_up_is_late(make: Loop) -> None:
    """A callback that blocks shows as lateness of about its length, and beats go on afterwards."""
    lag = HistogramCell((0.3,))
    heartbeats = Heartbeats(lag, interval=0.01)

    def block() -> None:
        asyncio.get_running_loop().call_later(0.05, time.sleep, 0.5)

    _run(make, heartbeats, block, lambda: lag.counts[1] >= 1)
    _run(make, heartbeats, lambda: None, lambda: sum(lag.counts) > 5)
    assert lag.sum >= 0.4


def test_several_loops_beat_each_for_itself() -> None:
    """Loops in threads of their own are watched together, each once, however often they are told of."""
    lag = HistogramCell((60.0,))
    heartbeats = Heartbeats(lag, interval=0.01)
    together = threading.Barrier(2)
    seen: list[int] = []

    def tell() -> None:
        heartbeats.watch(asyncio.get_running_loop())
        together.wait(20)
        seen.append(heartbeats.tasks())
        together.wait(20)

    threads = [
        threading.Thread(target=_run, args=(make, heartbeats, tell, lambda: sum(lag.counts) >= 6))
        for make in (asyncio.new_event_loop, uvloop.new_event_loop)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == [2, 2], "one task on each loop"


@LOOPS
def test_beats_keep_no_loop_and_no_context_and_end(make: Loop) -> None:
    """A loop with nothing else to do ends; the timer has not taken the request's context along; after stop nothing beats."""
    lag = HistogramCell(())
    heartbeats = Heartbeats(lag, interval=0.01)
    found: list[str] = []
    beat = heartbeats._beat

    def noting(loop: asyncio.AbstractEventLoop, due: float) -> None:
        found.append(_marked.get())
        beat(loop, due)

    heartbeats._beat = noting  # type: ignore[method-assign]
    token = _marked.set("request")
    _run(make, heartbeats, lambda: None, lambda: len(found) > 2)
    _marked.reset(token)
    assert set(found) == {""}
    heartbeats.stop()
    closed = make()
    closed.close()
    heartbeats.watch(closed)
    Heartbeats(lag).watch(closed)
    assert heartbeats.tasks() == 0


QUIET = """\
import asyncio, sys
import sage_obs
sage_obs.instrument("quiet", metrics_host="127.0.0.1", metrics_port=0, traces=False, logs=False)

async def main():
    sage_obs.uninstrument()
    sage_obs.instrument("quiet", metrics_host="127.0.0.1", metrics_port=0, traces=False, logs=False)
    await asyncio.sleep(0.25)

for debug in (False, True):
    asyncio.run(main(), debug=debug)
"""


def test_nothing_is_said_when_loops_and_process_end() -> None:
    """With every warning an error and asyncio's debug mode on, a program that is watched to its end writes nothing."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", QUIET], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_layer_watches_the_loops_that_serve(instrument: Start) -> None:
    """The loop a request is served on beats and has tasks; threads are counted; uninstrument stops it all."""
    instrument()
    app = sage_obs.instrument_app(answering(200))

    async def main() -> float:
        from tests.support.asgi import scope_of, serve

        await serve(app, scope_of("GET", "/"))
        deadline = time.monotonic() + 20
        while not value(EVENT_LOOP_LAG, suffix="_count"):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        return value(RUNTIME_TASKS)

    assert asyncio.run(main()) == 1
    assert value(RUNTIME_THREADS) == threading.active_count()
    assert value(RUNTIME_TASKS) == 0
    sage_obs.uninstrument()
    assert call(app, "GET", "/").status == 200
    assert not loops._seen.followers


def test_the_loop_of_an_agent_that_no_request_calls_is_watched(instrument: Start) -> None:
    """An asynchronous agent's is, and so is one that was seen before the layer began, or that runs where it begins."""

    async def beats() -> None:
        before, deadline = value(EVENT_LOOP_LAG, suffix="_count"), time.monotonic() + 20
        while value(EVENT_LOOP_LAG, suffix="_count") == before:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    async def before() -> None:
        await sage_obs.agent("early")(asyncio.sleep)(0)
        await asyncio.to_thread(instrument)
        await beats()

    async def after() -> None:
        await sage_obs.agent("late")(asyncio.sleep)(0)
        await beats()

    async def here() -> None:
        instrument("here")
        await beats()

    for main in (before, after, here):
        asyncio.run(main())


def test_an_agent_runs_where_no_loop_does() -> None:
    """A coroutine that another library drives, and a loop without weak references, are no reason to fail."""

    @sage_obs.agent("driven")
    async def driven() -> str:
        return "done"

    with pytest.raises(StopIteration) as end:
        driven().send(None)
    assert end.value.value == "done"
    loops.seen(object.__new__(_Slotted))  # type: ignore[arg-type]


class _Slotted:
    __slots__ = ()


def test_collections_are_timed_by_generation(instrument: Start) -> None:
    """Each generation has its pauses, the callback is gone afterwards, and nobody else's is."""

    def theirs(_: str, __: dict[str, int]) -> None:
        """Stay."""

    before = list(gc.callbacks)
    gc.callbacks.append(theirs)
    try:
        instrument()
        full = value(GC_PAUSE, suffix="_count", generation="2")
        gc.collect()
        gc.collect(0)
        assert value(GC_PAUSE, suffix="_count", generation="2") == full + 1
        assert value(GC_PAUSE, suffix="_count", generation="0") >= 1
        sage_obs.uninstrument()
        assert gc.callbacks == [*before, theirs]
    finally:
        gc.callbacks.remove(theirs)


def test_a_pause_whose_beginning_was_missed_is_not_counted() -> None:
    """A collector that is met half way is no pause since the beginning of the clock."""
    now = iter([5.0, 7.0])
    cell = HistogramCell((1.0,))
    pauses = Pauses([cell], clock=lambda: next(now))
    pauses._callback("stop", {"generation": 0})
    pauses._callback("start", {"generation": 2})
    pauses._callback("stop", {"generation": 2})
    assert (cell.counts, cell.sum) == ([0, 1], 2.0)


def _group(root: Path, line: str, **files: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"{line}\n")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("line", "files", "limit"),
    [
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": "1000", "memory.max": "max"}, 1000),
        ("0::/", {"memory.max": "4096"}, 4096),
        ("0::/../host/path", {"memory.max": "4096"}, 4096),
        ("0::/a", {"a/memory.max": "max"}, None),
        ("5:cpu,memory:/docker/x", {"memory/memory.limit_in_bytes": "2048"}, 2048),
        ("5:memory:/x", {"memory/x/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("5:memory:/x", {"memory/x/memory.limit_in_bytes": "broken"}, None),
        ("nonsense", {}, None),
    ],
    ids=["v2 above", "v2 container", "v2 outside", "v2 unlimited", "v1 container", "v1 unlimited", "broken", "no line"],
)
def test_the_memory_limit_is_the_least_of_the_groups(tmp_path: Path, line: str, files: dict[str, str], limit: int | None) -> None:
    """Of both versions of control groups, inside a container and outside; what is unlimited or unreadable is no limit."""
    assert memory_limit(_group(tmp_path, line, **files)) == limit


def test_without_a_limit_there_is_no_series(instrument: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there with its value while there is one, and gone when it is lifted."""
    instrument()
    monkeypatch.setattr(component, "memory_limit", lambda: 1024)
    assert value(MEMORY_LIMIT) == 1024
    monkeypatch.setattr(component, "memory_limit", lambda: None)
    assert children(MEMORY_LIMIT) == []


class _LooksLikeATask:
    """What a server registers among the tasks before it belongs to a loop."""

    def get_loop(self) -> None:
        raise RuntimeError("Future object is not initialized.")


def test_what_only_looks_like_a_task_costs_no_scrape(instrument: Start) -> None:
    """A server's own stand-in among the tasks of a loop leaves the page whole."""

    async def main() -> bytes:
        loops.seen_here()
        stand_in: Any = _LooksLikeATask()
        asyncio.tasks._register_task(stand_in)
        try:
            return generate_latest()
        finally:
            asyncio.tasks._unregister_task(stand_in)

    instrument()
    assert b"\nsage_runtime_threads " in asyncio.run(main())


def test_a_refresh_that_fails_costs_no_scrape(instrument: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gauges that cannot be brought up to date are counted as an error; everything else is still on the page."""
    instrument()
    testing.reraise_internal_errors(on=False)

    def broken() -> int | None:
        raise ValueError("broken")

    monkeypatch.setattr("sage_obs.runtime.component.memory_limit", broken)
    assert b"\nsage_build_info{" in generate_latest()
    assert value(INTERNAL_ERRORS, component="metrics") >= 1, "one for each reading"
