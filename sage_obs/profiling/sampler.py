"""One sampler for all who want to look: it runs while a window is open, and costs nothing while none is."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from sage_obs.metrics.active import internal_error
from sage_obs.profiling import clocks
from sage_obs.profiling.alarms import CLOCKS, Alarm
from sage_obs.profiling.idleness import idle
from sage_obs.profiling.stacks import key_of, task_name, threads
from sage_obs.profiling.ticking import Ticker
from sage_obs.profiling.windows import Mode, Spot, Window

HZ: Final = 100
MOST_HZ: Final = 500
_PATIENCE: Final = 0.1
"""Seconds between looks at whether the signal still comes: it does not while the main thread is inside of native code."""
_LATE_PERIODS: Final = 5
_ALONE: Final = 0.9
"""Of the process's time: who has used more was at work when the signal came, which comes at no other time."""
OWN: Final = "sage-obs-sampler"


class Sampler:
    """Ticks by SIGPROF, on the processor's time or on elapsed time as the windows want; from a thread where that signal is not free.

    The time that passed since the tick before goes to where each thread stands now; that of the processor, where the thread seems to
    wait, to where it is seen at work next. A tick may come in a signal handler in the middle
    of anything: it takes no lock that it could wait for.
    """

    def __init__(self, idents: Callable[[], Mapping[Any, int]] = dict) -> None:
        self._idents = idents
        self._windows: tuple[Window, ...] = ()
        self._lock = threading.Lock()
        self._random = random.Random().random  # noqa: S311 - not the application's numbers, which it may have seeded
        self._begin()
        self.why_no_signal = "it was not armed"
        self._handler = self._on_signal

    def _begin(self) -> None:
        self._busy = threading.Lock()
        self._times: dict[int, tuple[int, str, int]] = {}
        self._owed: dict[int, int] = {}
        self._spots: dict[int, Spot] = {}
        self._process = 0
        self._wall = self._last = 0
        self._alarms: dict[Mode, Alarm] = {}
        self._ticker: Ticker | None = None

    def arm(self) -> bool:
        """Take SIGPROF where nobody has it; only the main thread may. Whether it is ours now."""
        if threading.current_thread() is not threading.main_thread():
            self.why_no_signal = "the layer was not started in the main thread"
        elif signal.getsignal(signal.SIGPROF) is not signal.SIG_DFL or signal.getitimer(signal.ITIMER_PROF) != (0.0, 0.0):
            self.why_no_signal = "the application uses SIGPROF itself"
        else:
            signal.signal(signal.SIGPROF, self._handler)
            self.why_no_signal = ""
            self._make_alarms()
        return not self.why_no_signal

    def _make_alarms(self) -> None:
        try:
            self._alarms = {"cpu": Alarm(CLOCKS["cpu"]), "wall": Alarm(CLOCKS["wall"])}
        except OSError as exc:
            self.why_no_signal = f"this system has no timers for it ({exc.strerror or exc})"
            signal.signal(signal.SIGPROF, signal.SIG_DFL)

    def disarm(self) -> None:
        """Close every window and give the signal back; where another thread asks for that the handler stays, and does nothing."""
        with self._lock:
            for window in self._windows:
                window.gone.set()
            self._windows = ()
            running = any(alarm.period for alarm in self._alarms.values())
            self._run()
            alarms, self._alarms = self._alarms, {}
            for alarm in alarms.values():
                alarm.delete()
        if self._has_signal() and threading.current_thread() is threading.main_thread():
            if running:
                time.sleep(2 / HZ)  # one that is on its way would end the process
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
        self.why_no_signal = "it was disarmed"

    def _has_signal(self) -> bool:
        return not self.why_no_signal and signal.getsignal(signal.SIGPROF) == self._handler

    @contextmanager
    def window(self, mode: Mode, hz: int = HZ) -> Iterator[Window]:
        """A window that is open for the length of the block."""
        window = Window(mode, hz)
        with self._lock:
            if not any(one.mode == mode for one in self._windows):
                self._rebase(mode)
            self._windows = (*self._windows, window)
            self._run()
        try:
            yield window
        finally:
            self.tick(None, last=True)
            with self._lock:
                self._windows = tuple(one for one in self._windows if one is not window)
                self._run()
            window.end()

    def watch(self, window: Window, seconds: float, gone: Callable[[], bool]) -> bool:
        """Wait this long, and see to it that samples come meanwhile; False as soon as the window or who asked for it is gone."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if window.gone.wait(min(_PATIENCE, left)) or gone():
                return False
            if self._is_late(window):
                self.tick(None)
        return True

    def _is_late(self, window: Window) -> bool:
        """Whether ticks stay away: the main thread, which has to make them, is inside of native code."""
        since = time.process_time_ns() - self._last if window.mode == "cpu" else time.monotonic_ns() - self._wall
        return since > _LATE_PERIODS * 1_000_000_000 // window.hz

    def source(self, mode: Mode) -> str:
        """How ticks come, in words."""
        if self._has_signal():
            return f"ticks: SIGPROF, on {'processor' if mode == 'cpu' else 'elapsed'} time"
        return f"ticks: a thread, as {self.why_no_signal or 'somebody took SIGPROF'}"

    def _rebase(self, mode: Mode) -> None:
        if mode == "cpu":
            self._times, self._process, self._owed = clocks.thread_times(), time.process_time_ns(), {}
            self._last = self._process
        else:
            self._wall = time.monotonic_ns()

    def _run(self) -> None:
        """Tick as fast as the windows want, and only while there are any."""
        cpu = max((one.hz for one in self._windows if one.mode == "cpu"), default=0)
        wall = max((one.hz for one in self._windows if one.mode == "wall"), default=0)
        by_signal = self._has_signal()
        for mode, alarm in self._alarms.items():
            hz = (cpu if mode == "cpu" else wall) if by_signal else 0
            alarm.set(1 / hz if hz else 0.0)
        ticker, self._ticker = self._ticker, None
        if ticker is not None:
            ticker.close()
        if not by_signal and (hz := max(cpu, wall)):
            self._ticker = Ticker(self.tick, 1 / hz, name=OWN)

    def restart_after_fork(self) -> None:
        """No window of the parent's is open here, and none of its timers goes off."""
        self._lock = threading.Lock()
        self._windows = ()
        if self._ticker is not None:
            self._ticker.abandon()
        self._begin()
        if self._has_signal():
            self._make_alarms()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number
        self.tick(frame)
        for alarm in self._alarms.values():
            if period := alarm.period:  # a moment at random: a program that goes in circles of a period would be seen at one place only
                alarm.set(period, period * (0.5 + self._random()))

    def tick(self, interrupted: FrameType | None, *, last: bool = False) -> None:
        """Give the time since the last tick to where the threads stand; `interrupted` is where the main thread was.

        The `last` of a window leaves nothing to be given later.
        """
        windows = self._windows
        if not windows or not self._busy.acquire(blocking=False):
            return
        try:
            self._look(windows, interrupted, last=last)
        except Exception as exc:  # noqa: BLE001 - it may be in the middle of the application's work
            internal_error("profiling", exc)
        finally:
            self._busy.release()

    def _look(self, windows: tuple[Window, ...], interrupted: FrameType | None, *, last: bool) -> None:
        cpu = [one for one in windows if one.mode == "cpu"]
        wall = [one for one in windows if one.mode == "wall"]
        times, frames = clocks.thread_times(), threads()
        tasks = current_tasks(self._idents())
        if interrupted is not None:
            frames[threading.main_thread().ident or 0] = interrupted
        before, self._times = self._times, times
        now, process = time.monotonic_ns(), time.process_time_ns()
        elapsed, self._wall = now - self._wall, now
        whole, self._process = process - self._process, process
        self._last = process
        seen = 0
        stood, self._spots = self._spots, {}
        for ident, (native, name, spent) in times.items():
            known = before.get(ident)
            used = spent - known[2] if known is not None and known[0] == native else spent
            seen += used
            frame = frames.get(ident)
            if frame is None:
                continue
            due = self._owed.pop(ident, 0) + used
            if due and cpu and not last and idle(native, frame, here=frame is interrupted, shared=used < whole * _ALONE):
                self._owed[ident], due = due, 0
            if wall or due:  # who has not run since stands where it stood
                spot = (stood.get(ident) if used == 0 else None) or Spot(name, tasks.get(ident, ""), key_of(frame))
                self._spots[ident] = spot
                for window in cpu if due else ():
                    window.add(spot, due)
                for window in wall if name != OWN else ():
                    window.add(spot, elapsed)
        for window in cpu:
            window.add_elsewhere(max(0, whole - seen))
        for window in windows:
            window.ticks += 1


def current_tasks(idents: Mapping[Any, int]) -> dict[int, str]:
    """The name of the task that runs in each thread whose loop says which thread that is, or of which `idents` does."""
    found = {}
    for loop, task in list(_CURRENT.items()):
        ident = getattr(loop, "_thread_id", None) or idents.get(loop)
        if ident is None and loop is asyncio._get_running_loop():  # noqa: SLF001 - that of this thread, without an error for none
            ident = threading.get_ident()
        if isinstance(ident, int):
            found[ident] = task_name(task)
    return found


_CURRENT: Final = getattr(asyncio.tasks, "_current_tasks", {})
