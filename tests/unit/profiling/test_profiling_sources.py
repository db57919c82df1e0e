"""What profiles are taken from, each by itself."""

from __future__ import annotations

import asyncio
import dis
import gc
import itertools
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest

from sage_obs import loops
from sage_obs.profiling import clocks, heap, idleness, stacks, tasks, windows
from sage_obs.profiling import sampler as sampling
from sage_obs.profiling.contention import Contentions
from sage_obs.profiling.locks import Locks
from sage_obs.profiling.profile import Frame, Profile
from sage_obs.profiling.sampler import Sampler
from sage_obs.profiling.stalls import Stalls, _Beat
from sage_obs.profiling.windows import Spot, Window


def _names(profile: Profile) -> set[str]:
    return {frame.name for sample in profile.samples for frame in sample.stack}


@pytest.fixture
def sampler() -> Iterator[Sampler]:
    """A sampler, disarmed afterwards."""
    made = Sampler()
    yield made
    made.disarm()


def test_the_signal_is_taken_and_given_back(sampler: Sampler) -> None:
    """SIGPROF is ours while the sampler is armed, its timer runs while a window is open, and both are as before in the end."""
    assert sampler.arm()
    assert _periods(sampler) == [0, 0]
    with sampler.window("cpu"):
        assert _periods(sampler) == [0.01, 0]
        with sampler.window("cpu", 200), sampler.window("wall"):
            assert _periods(sampler) == [0.005, 0.01]
    assert _periods(sampler) == [0, 0]
    sampler.disarm()
    assert signal.getsignal(signal.SIGPROF) is signal.SIG_DFL


def _periods(sampler: Sampler) -> list[float]:
    return [alarm.period for alarm in sampler._alarms.values()]


def test_ticks_come_and_end(sampler: Sampler) -> None:
    """On elapsed time while nothing happens, on the processor's while something does, and no more when the window is closed."""
    assert sampler.arm()
    with sampler.window("wall") as wall:
        assert sampler.watch(wall, 0.5, lambda: False)
    assert 25 <= wall.ticks <= 60
    with sampler.window("cpu") as cpu:
        end = time.process_time() + 0.5
        while time.process_time() < end:
            sum(range(1000))
    assert 25 <= cpu.ticks <= 80
    before = cpu.ticks, wall.ticks
    end = time.process_time() + 0.05
    while time.process_time() < end:
        sum(range(1000))
    assert (cpu.ticks, wall.ticks) == before


def test_a_handler_of_the_applications_is_never_taken(sampler: Sampler) -> None:
    """The window ticks from a thread then, says so, and the handler stays."""

    def theirs(*_: object) -> None:
        """The application's."""

    signal.signal(signal.SIGPROF, theirs)
    try:
        assert not sampler.arm()
        with sampler.window("cpu") as window:
            sum(range(100_000))
        assert "a thread, as the application uses SIGPROF" in sampler.source("cpu")
        assert signal.getsignal(signal.SIGPROF) is theirs
        assert window.ticks
    finally:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)


def test_a_signal_that_somebody_takes_later_is_theirs(sampler: Sampler) -> None:
    """A window that opens afterwards ticks from a thread, and disarming leaves their handler."""
    assert sampler.arm()
    previous = signal.signal(signal.SIGPROF, signal.SIG_IGN)
    assert callable(previous)
    with sampler.window("cpu"):
        assert _periods(sampler) == [0, 0]
    sampler.disarm()
    assert signal.getsignal(signal.SIGPROF) is signal.SIG_IGN
    signal.signal(signal.SIGPROF, signal.SIG_DFL)


def test_only_the_main_thread_can_arm(sampler: Sampler) -> None:
    """Elsewhere it is said why there is no signal."""
    thread = threading.Thread(target=sampler.arm)
    thread.start()
    thread.join()
    assert "main thread" in sampler.source("cpu")


def test_the_switch_interval_comes_back(sampler: Sampler) -> None:
    """It is short while a thread ticks, whoever else looks meanwhile."""
    usual = sys.getswitchinterval()
    with sampler.window("wall"):
        assert sys.getswitchinterval() < usual
        with sampler.window("wall"):
            pass
        assert sys.getswitchinterval() < usual
    assert sys.getswitchinterval() == pytest.approx(usual)


def test_windows_end_with_the_sampler(sampler: Sampler) -> None:
    """Whoever waits is told at once."""
    with sampler.window("wall") as window:
        threading.Timer(0.05, sampler.disarm).start()
        began = time.monotonic()
        assert not sampler.watch(window, 60, lambda: False)
    assert time.monotonic() - began < 5


def test_a_tick_in_the_middle_of_a_tick_is_nothing(sampler: Sampler) -> None:
    """Signals nest; the second leaves the time to the first."""
    with sampler.window("cpu") as window:
        with sampler._busy:
            sampler.tick(None)
        assert window.ticks == 0 or window.ticks < 3


def test_a_window_is_bounded() -> None:
    """Stacks beyond the limit are one; the time is all there."""
    window = Window("cpu", 100, limit=2)
    code = compile("0", "f", "exec")
    for line in range(10):
        window.add(Spot("t", "", (code, line)), 10_000_000)
    window.add_elsewhere(20_000_000)
    profile = window.profile()
    assert profile.total("cpu") == 120_000_000
    assert profile.total("samples") == 12
    assert {(windows._OTHER,), (windows.NATIVE,)} < {sample.stack for sample in profile.samples}


def test_a_spot_is_the_same_by_thread_task_code_and_line() -> None:
    """Made anew at each look it is counted in one place; equal code that is another object is another place until it has a name."""
    one, other = (compile("0", "f", "exec") for _ in range(2))
    spot = Spot("t", "a", (one, 1000, one, 2000))
    assert spot == Spot("t", "a", (one, int("1000"), one, int("2000")))
    others = [
        ("u", "a", (one, 1000, one, 2000)),
        ("t", "", (one, 1000, one, 2000)),
        ("t", "a", (one, 1000, one, 2001)),
        ("t", "a", (one, 1000)),
    ]
    assert not [each for each in (*others, ("t", "a", (other, 1000, one, 2000))) if Spot(*each) == spot]
    window = Window("wall", 100)
    for code in (one, one, other):
        window.add(Spot("t", "", (code, 1)), 10_000_000)
    assert [sample.values for sample in window.profile().samples] == [(3, 30_000_000)]


def test_a_thread_that_has_not_run_stands_where_it_stood(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stack is not walked again at every look, and its time is counted all the same; one that ran is seen where it is now."""
    ends = threading.Event()
    walked: list[set[str]] = []

    def sleeps() -> None:
        ends.wait()

    thread = threading.Thread(target=sleeps, name="sleeper")
    thread.start()
    walk = stacks.key_of

    def noted(frame: Any) -> stacks.Key:
        key = walk(frame)
        walked.append({code.co_qualname for code in key[0::2] if not isinstance(code, int)})
        return key

    monkeypatch.setattr(sampling, "key_of", noted)
    with sampler.window("wall") as window:
        for _ in range(20):
            sampler.tick(None)
            time.sleep(0.01)
    ends.set()
    thread.join()
    slept = [one for one in window.profile().samples if ("thread", "sleeper") in one.labels]
    assert len(slept) == 1
    assert slept[0].values[1] == pytest.approx(window.profile().duration, rel=0.1)
    assert sum(sleeps.__qualname__ in names for names in walked) < 10
    assert sum("test_a_thread_that_has_not_run_stands_where_it_stood" in names for names in walked) >= 20


def test_clocks_of_threads_that_have_ended_are_an_error_and_not_a_crash() -> None:
    """The clock is known by a number, which nobody has any more."""
    thread = threading.Thread(target=lambda: sum(range(1000)))
    thread.start()
    native = thread.native_id
    thread.join()
    assert native is not None
    deadline = time.monotonic() + 20
    while _can_be_read(native):  # the kernel's part of a thread ends a moment after Python's
        assert time.monotonic() < deadline
    assert clocks.thread_times()[threading.get_ident()][2] == pytest.approx(time.thread_time_ns(), rel=0.2)


def _can_be_read(native: int) -> bool:
    try:
        return time.clock_gettime_ns(clocks.clock_of(native)) > 0
    except OSError:
        return False


def test_a_deep_stack_is_cut_on_the_outside() -> None:
    """The innermost calls are what is looked for."""

    def deep(left: int) -> stacks.Key:
        return deep(left - 1) if left else stacks.key_of(sys._getframe())

    stack = stacks.stack_of(deep(300))
    assert len(stack) == stacks.DEPTH + 1
    assert stack[-1].name == "(calls further out)"
    assert stack[0].name.endswith("deep")


def test_chains_go_through_coroutines_generators_and_wrappers() -> None:
    """The innermost await is found through asynchronous generators and what is awaited by hand."""

    async def inner() -> None:
        await asyncio.Event().wait()

    async def stream() -> AsyncIterator[int]:
        await inner()
        yield 1

    class _Awaitable:
        def __await__(self) -> Generator[Any, Any, None]:
            return inner().__await__()

    async def outer() -> None:
        async for _ in stream():
            pass

    async def other() -> None:
        await _Awaitable()

    async def main() -> list[tasks.Waiting]:
        made = [asyncio.create_task(outer(), name="named"), asyncio.create_task(other()), asyncio.create_task(other())]
        await asyncio.sleep(0)
        found = list(tasks.waiting_tasks())
        for one in made:
            one.cancel()
        await asyncio.gather(*made, return_exceptions=True)
        return found

    found = asyncio.run(main())
    chains = {one.name: [frame.name.rpartition(".")[2] for frame in stacks.stack_of(one.key)] for one in found}
    assert chains["named"] == ["wait", "inner", "stream", "outer"]
    assert next(chain for name, chain in chains.items() if name.endswith("other")) == ["wait", "inner", "other"]
    assert any(one.state == "running" for one in found)
    profile = tasks.profile(found)
    assert sorted(sample.values[0] for sample in profile.samples) == [1, 1, 2]
    assert "2 task" in tasks.listing(found, each=False)
    assert tasks.listing(found, each=True).count("other [waits for FutureIter]:") == 2
    assert tasks.tree(found)["total"] == 4


def test_names_of_tasks_are_as_many_as_kinds_of_task() -> None:
    """A number is not a name; a name is no longer than a label may be."""

    async def work() -> None: ...

    async def main() -> list[str]:
        made = [asyncio.create_task(work()), asyncio.create_task(work(), name="x" * 1000)]
        names = [stacks.task_name(one) for one in made]
        await asyncio.gather(*made)
        return names

    first, second = asyncio.run(main())
    assert first.endswith("work")
    assert second == "x" * 100


def test_who_waits_for_a_lock_is_counted() -> None:
    """A contended lock of each kind shows who waited and about how long; one that is free is not counted; the factories come back."""
    locks = Locks()
    before = threading.Lock, threading.RLock, asyncio.Lock.acquire
    locks.install()
    try:
        for lock in (threading.Lock(), threading.RLock()):
            with lock:
                waiter = threading.Thread(target=_wait_for, args=(lock,))
                waiter.start()
                time.sleep(0.05)
            waiter.join()
            assert lock.acquire(blocking=False)
            lock.release()
        asyncio.run(_contend())
        condition = threading.Condition()
        with condition:
            assert not condition.wait(0.001)
    finally:
        locks.uninstall()
    assert (threading.Lock, threading.RLock, asyncio.Lock.acquire) == before
    profile = locks.found.profile()
    labels = {dict(sample.labels)["lock"]: sample for sample in profile.samples if sample.values[1] > 20_000_000}
    assert set(labels) == {"threading.Lock", "threading.RLock", "asyncio.Lock"}
    assert all(sample.values[0] == 1 for sample in labels.values())
    assert labels["threading.Lock"].stack[0].name == "_wait_for"
    assert "_taker" in {frame.name for frame in labels["asyncio.Lock"].stack}


def _wait_for(lock: threading.Lock) -> None:
    with lock:
        pass


async def _taker(lock: asyncio.Lock) -> None:
    async with lock:
        await asyncio.sleep(0.05)


async def _contend() -> None:
    lock = asyncio.Lock()
    await asyncio.gather(_taker(lock), _taker(lock))


def test_locks_made_meanwhile_go_on_in_silence() -> None:
    """What is uninstalled counts no more."""
    locks = Locks()
    locks.install()
    lock = threading.Lock()
    locks.uninstall()
    lock.acquire()
    assert not lock.acquire(timeout=0.001)
    lock.release()
    assert not lock.locked()
    assert locks.found.profile().samples == ()


def test_contentions_are_bounded() -> None:
    """Places beyond the limit are one, and nothing is lost."""
    found = Contentions("source", limit=1)
    code = compile("0", "f", "exec")
    for line in (1, 2, 3):
        found.add((code, line), (), 1, 5)
    assert [sample.values for sample in found.profile().samples] == [(2, 10), (1, 5)]


def test_a_late_beat_is_a_stall_of_where_the_thread_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """The delay counts from when the beat was due; looks go on adding, and the next stall is another contention."""
    stalls, loop, beat = Stalls(), asyncio.new_event_loop(), _Beat()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "is_running", lambda: True)
        beat.ident, beat.due = threading.get_ident(), 100.0
        for now in (100.0, 100.04, 100.06, 100.1):
            stalls._look(loop, beat, now)
        beat.due = 200.0
        for now in (200.0, 200.2):
            stalls._look(loop, beat, now)
    loop.close()
    profile = stalls.profile()
    assert profile.total("contentions") == 2
    assert profile.total("delay") == pytest.approx(300_000_000, rel=0.001)
    assert "test_a_late_beat_is_a_stall_of_where_the_thread_stands" in _names(profile)


def test_every_loop_that_works_is_watched_until_the_end() -> None:
    """The loop's thread is known, no follower and no thread is left behind."""
    stalls = Stalls()

    async def main() -> None:
        stalls.start()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert list(stalls.idents().values()) == [threading.get_ident()]

    asyncio.run(main())
    stalls.stop()
    assert not loops._seen.followers
    assert not [one for one in threading.enumerate() if one.name == "sage-obs-stalls"]


def test_types_are_sized_without_asking_them() -> None:
    """A class that lies about itself, or raises, is measured by its base; the whole is what is resident."""

    class _Meta(type):
        def __hash__(cls) -> int:
            raise AssertionError

    class _Liar(dict[str, int], metaclass=_Meta):
        def __sizeof__(self) -> int:
            raise AssertionError

    kept = [_Liar(a=1) for _ in range(100)]
    gc.collect()
    profile = heap.by_type()
    (sample,) = (one for one in profile.samples if one.stack[0].name.endswith("_Liar"))
    assert sample.values[0] == len(kept)
    assert sample.values[1] >= 100 * dict.__sizeof__({"a": 1})
    assert profile.total("inuse_space") == pytest.approx(heap._resident(), rel=0.2)


def test_one_heap_profile_at_a_time() -> None:
    """The second is told how long the first may take, and the turn comes back whatever happens."""
    taken, errors = heap.Heap(), []

    def wait(_: float) -> bool:
        with pytest.raises(heap.Busy) as caught:
            taken.take()
        errors.append(caught.value.seconds)
        return False

    assert taken.over(30, wait) is None
    assert 20 < errors[0] <= 30
    assert taken.take().samples


def test_tracing_that_takes_too_much_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """The profile says so."""
    monkeypatch.setattr(heap, "MOST_TRACED_BYTES", 0)
    profile = heap.Heap().over(60, lambda _: True)
    assert profile is not None
    assert "ended early" in profile.comments[1]


def test_what_is_allocated_meanwhile_and_kept_is_found_by_line() -> None:
    """Its number and its size, and nothing of what was there before."""
    kept: list[bytearray] = []
    once = itertools.count()

    def wait(seconds: float) -> bool:
        if next(once) == 0:
            kept.extend(bytearray(10_000) for _ in range(50))
        time.sleep(min(seconds, 0.01))
        return True

    profile = heap.Heap().over(0.05, wait)
    assert profile is not None
    first = profile.samples[0]
    assert first.stack[0].name.startswith("test_profiling_sources.py:")
    assert first.values[1] == pytest.approx(50 * 10_057, rel=0.05)


def test_calls_that_wait_are_told_from_those_that_work() -> None:
    """By what is called where the thread stands, with arguments and without; a `with` may wait as well."""

    def waits(lock: threading.Lock, loop: asyncio.AbstractEventLoop) -> None:
        time.sleep(max(1, 2) + 0.5)
        lock.acquire(timeout=min(3, 4))
        loop.run_forever()

    def works(numbers: list[int]) -> None:
        sum(range(10))
        numbers.sort(key=abs, reverse=True)

    assert {name for name in ("sleep", "acquire", "run_forever", "max", "min") if _waits_at(waits, name)} == {
        "sleep",
        "acquire",
        "run_forever",
    }
    assert not any(_waits_at(works, name) for name in ("sum", "range", "sort", "abs"))


def _waits_at(function: Callable[..., None], name: str) -> bool:
    """Whether the call of that name waits; calls are found by their arguments' end, as the compiler places them."""
    code = function.__code__
    lines = {"sleep": 1, "max": 1, "acquire": 2, "min": 2, "run_forever": 3, "sum": 1, "range": 1, "sort": 2, "abs": 2}
    calls = [
        one.offset
        for one in dis.get_instructions(code)
        if one.opname == "CALL" and one.positions is not None and one.positions.lineno == code.co_firstlineno + lines[name]
    ]
    inner = name in {"max", "min", "range"}
    return bool(calls) and idleness._may_wait(code, calls[0] if inner else calls[-1])


def test_threads_are_known_by_what_they_were_started_to_run() -> None:
    """The outermost call of each."""
    assert Frame("<module>") not in {sample.stack[0] for sample in tasks.created().samples}
    assert tasks.created().total() >= 1
