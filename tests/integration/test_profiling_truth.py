"""Programs whose profile is known, and whether it comes out: within five points."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from sage_obs.processes import spawn, stop
from sage_obs.profiling import pprof
from sage_obs.profiling.profile import Profile, Sample
from tests.support.ports import free_port
from tests.support.services import wait_until

pytestmark = pytest.mark.system

_HEAD = """
import asyncio, os, sys, threading, time
import sage_obs
from sage_obs import loops
sage_obs.instrument(profiling=True, profiling_port=int(os.environ["PORT"]), profiling_locks=True, metrics=False, health=False, logs=False,
                    libraries=[], strict=True)

def spend(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(500))

def much(): spend(0.0077)
def little(): spend(0.0033)
"""
_SPLIT = """
threading.Thread(target=lambda: time.sleep(1000), name="sleeper", daemon=True).start()
def seventy(): spend(0.07)
def thirty(): spend(0.03)
while True:
    seventy(); thirty()
"""
_IN_STEP = """
def seven(): spend(0.007)
def three(): spend(0.003)
while True:
    seven(); three()
"""
_THREADS = """
def worker():
    while True: much()
threading.Thread(target=worker, name="worker", daemon=True).start()
while True:
    little(); time.sleep(0.004)
"""
_BUSY_LOOP = """
import uvloop
async def request(work):
    while True:
        work()
        await asyncio.sleep(0)
async def main():
    loops.seen_here()
    await asyncio.gather(asyncio.create_task(request(much), name="much"), asyncio.create_task(request(little), name="little"))
(uvloop.run if sys.argv[1:] == ["uvloop"] else asyncio.run)(main())
"""
_BLOCKED = """
import uvloop
def block():
    time.sleep(0.4)
async def main():
    loops.seen_here()
    while True:
        await asyncio.sleep(0.6)
        block()
(uvloop.run if sys.argv[1:] == ["uvloop"] else asyncio.run)(main())
"""
_LOCK = """
lock = threading.Lock()
def holder():
    while True:
        with lock: time.sleep(0.09)
        time.sleep(0.01)
def waiter():
    while True:
        with lock: pass
        time.sleep(0.001)
threading.Thread(target=holder, daemon=True).start()
waiter()
"""
_TASKS = """
async def sleeps(): await asyncio.sleep(1000)
async def listens(queue): await queue.get()
async def holds(event): await inner(event)
async def inner(event): await event.wait()
async def main():
    queue, event = asyncio.Queue(), asyncio.Event()
    kept = [asyncio.create_task(sleeps()) for _ in range(5000)]
    kept += [asyncio.create_task(listens(queue)) for _ in range(3000)]
    kept += [asyncio.create_task(holds(event)) for _ in range(2000)]
    await asyncio.gather(*kept)
asyncio.run(main())
"""
_LEAK = """
kept = []
def leak_much(): kept.append(bytearray(7_000))
def leak_little(): kept.append(bytearray(3_000))
while True:
    leak_much(); leak_little(); bytearray(100_000); time.sleep(0.002)
"""


@contextmanager
def _program(folder: Path, body: str, *arguments: str) -> Iterator[Callable[..., Profile]]:
    """The program, and what fetches a profile of it."""
    file, port = folder / "program.py", free_port()
    file.write_text(_HEAD + body)
    process = spawn("program", [sys.executable, str(file), *arguments], log=folder / "log", environment={"PORT": str(port)})

    def fetch(path: str) -> Profile:
        answer = httpx.get(f"http://127.0.0.1:{port}/debug/pprof/{path}", timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text
        return pprof.decode(answer.content)

    def answers() -> bool:
        assert process.exit_code is None, process.tail(20)
        try:
            return httpx.get(f"http://127.0.0.1:{port}/debug/pprof/symbol", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, says=lambda: process.tail(20))
        time.sleep(0.5)  # what it does on the way there is not what it does
        yield fetch
    finally:
        stop([process], grace=2)


def _share(profile: Profile, function: str, kind: str = "", *, of: Callable[[Sample], bool] = lambda _: True) -> float:
    """The share of samples with this function among those in question."""
    at = profile.position(kind)
    asked = [sample for sample in profile.samples if of(sample)]
    found = sum(sample.values[at] for sample in asked if any(frame.name == function for frame in sample.stack))
    return found / sum(sample.values[at] for sample in asked)


def _of_thread(name: str) -> Callable[[Sample], bool]:
    return lambda sample: ("thread", name) in sample.labels


def test_a_split_of_70_to_30_and_a_sleeper(tmp_path: Path) -> None:
    """The processor's time is split as the program splits it; elapsed time is too, and the sleeper has all of its own."""
    with _program(tmp_path, _SPLIT) as fetch:
        cpu, wall = fetch("profile?seconds=4"), fetch("profile?seconds=4&mode=wall")
    assert _share(cpu, "seventy") == pytest.approx(0.7, abs=0.05)
    assert _share(cpu, "thirty") == pytest.approx(0.3, abs=0.05)
    assert "SIGPROF" in cpu.comments[0]
    assert not [sample for sample in cpu.samples if _of_thread("sleeper")(sample) and sample.values[1] > 10_000_000]
    main = _of_thread("MainThread")
    assert _share(wall, "seventy", of=main) == pytest.approx(0.7, abs=0.05)
    assert sum(one.values[1] for one in wall.samples if _of_thread("sleeper")(one)) == pytest.approx(wall.duration, rel=0.05)
    assert sum(one.values[1] for one in wall.samples if main(one)) == pytest.approx(wall.duration, rel=0.05)


def test_a_program_in_step_with_the_sampler_is_seen_as_a_whole(tmp_path: Path) -> None:
    """One that goes in circles of ten milliseconds is not always met at the same place, as looks come at random moments."""
    with _program(tmp_path, _IN_STEP) as fetch:
        cpu, wall = fetch("profile?seconds=5&hz=200"), fetch("profile?seconds=5&hz=200&mode=wall&thread=MainThread")
    assert _share(cpu, "seven") == pytest.approx(0.7, abs=0.12)  # timers of this kind go off at the kernel's ticks only, of 1 to 10 ms
    assert _share(wall, "seven") == pytest.approx(0.7, abs=0.05)


def test_threads_have_their_own_time(tmp_path: Path) -> None:
    """A thread that computes beside one that mostly sleeps has what its clock says, though signals go to the main thread."""
    with _program(tmp_path, _THREADS) as fetch:
        profile = fetch("profile?seconds=3")
    worker = sum(sample.values[1] for sample in profile.samples if _of_thread("worker")(sample))
    assert worker / profile.total("cpu") > 0.5
    assert _share(profile, "much", of=_of_thread("worker")) > 0.95
    assert _share(profile, "little", of=_of_thread("MainThread")) > 0.9


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_tasks_of_a_busy_loop_have_their_own_time(tmp_path: Path, loop: str) -> None:
    """Beside a loop that never rests the split is right by function and by task, on the processor and by the clock."""
    with _program(tmp_path, _BUSY_LOOP, loop) as fetch:
        for profile in (fetch("profile?seconds=6&hz=250"), fetch("profile?seconds=6&hz=250&mode=wall&thread=MainThread")):
            assert _share(profile, "much") == pytest.approx(0.7, abs=0.05)
            assert _share(profile, "little") == pytest.approx(0.3, abs=0.05)
            named = {dict(sample.labels).get("task") for sample in profile.samples}
            assert {"much", "little"} <= named
        only = fetch("profile?seconds=2&task=little")
    assert {dict(sample.labels)["task"] for sample in only.samples} == {"little"}
    assert _share(only, "much") == 0.0
    assert _share(only, "little") > 0.9  # the rest is the loop's own work for the task


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_blocks_a_loop_for_400_ms_is_named(tmp_path: Path, loop: str) -> None:
    """The function, how often, and for how long, within the beat's tenth of a second."""
    with _program(tmp_path, _BLOCKED, loop) as fetch:
        profile = fetch("block?seconds=5")
    assert _share(profile, "block", "delay") > 0.95
    times = profile.total("contentions")
    assert 4 <= times <= 6
    assert 0.25e9 <= profile.total("delay") / times <= 0.45e9


def test_a_contended_lock_is_named_with_its_wait(tmp_path: Path) -> None:
    """Who waits is waiting nine tenths of the time."""
    with _program(tmp_path, _LOCK) as fetch:
        profile = fetch("mutex?seconds=4")
    assert _share(profile, "waiter", "delay") > 0.9
    assert sum(one.values[1] for one in profile.samples if one.stack[0].name == "waiter") / 4e9 == pytest.approx(0.9, abs=0.08)


def test_ten_thousand_tasks_in_three_states(tmp_path: Path) -> None:
    """Each is counted where it waits, with the whole chain; it takes less than two seconds."""
    with _program(tmp_path, _TASKS) as fetch:
        began = time.monotonic()
        profile = fetch("goroutine")
        took = time.monotonic() - began
    counts = {sample.stack[-1].name: (sample.values[0], [frame.name for frame in sample.stack]) for sample in profile.samples}
    assert counts["sleeps"] == (5000, ["sleep", "sleeps"])
    assert counts["listens"] == (3000, ["Queue.get", "listens"])
    assert counts["holds"] == (2000, ["Event.wait", "inner", "holds"])
    assert took < 2


def test_a_leak_is_found_by_site_and_size(tmp_path: Path) -> None:
    """Two sites that leak 70 and 30 parts; what is allocated and let go is in neither."""
    with _program(tmp_path, _LEAK) as fetch:
        profile = fetch("heap?seconds=3")
    sizes = [2 * sample.values[1] / sample.values[0] for sample in profile.samples[:2]]  # an array is an object and its bytes
    assert sizes == [pytest.approx(7057, abs=300), pytest.approx(3057, abs=300)]
    first, second = (sample.values[1] for sample in profile.samples[:2])
    assert first / profile.total("inuse_space") == pytest.approx(0.7, abs=0.05)
    assert second / profile.total("inuse_space") == pytest.approx(0.3, abs=0.05)
