"""Timers of POSIX that send SIGPROF: on the time of the processor, and on elapsed time.

Unlike those of setitimer they end with the program that made them, also where that replaces itself by another one; neither kind is
inherited by a forked child.
"""

from __future__ import annotations

import ctypes
import signal
import time
from typing import Any, Final

_SIGEV_SIGNAL: Final = 0
_SIGEV_SIZE: Final = 64
_SECOND: Final = 1_000_000_000


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Time), ("value", _Time))


class _Event(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_char * (_SIGEV_SIZE - ctypes.sizeof(ctypes.c_void_p) - 2 * ctypes.sizeof(ctypes.c_int))),
    )


class Alarm:
    """A timer on a clock (`time.CLOCK_…`). Raises OSError where the system has none such."""

    def __init__(self, clock: int) -> None:
        self._library = ctypes.PyDLL(None, use_errno=True)  # calls keep the turn: they are short, and made in signal handlers
        self._timer = ctypes.c_void_p()
        self.period = 0.0
        event = _Event(signo=signal.SIGPROF, notify=_SIGEV_SIGNAL)
        self._call("timer_create", clock, ctypes.byref(event), ctypes.byref(self._timer))

    def set(self, period: float, first: float | None = None) -> None:
        """Go off every `period` seconds, after `first` for the first time; a period of 0 stops it. Raises OSError."""
        self.period = period
        setting = _Setting(_time(period), _time(period if first is None else first))
        self._call("timer_settime", self._timer, 0, ctypes.byref(setting), None)

    def delete(self) -> None:
        """Go off no more. Raises OSError."""
        self.period = 0.0
        self._call("timer_delete", self._timer)

    def _call(self, name: str, *arguments: Any) -> None:
        try:
            function = getattr(self._library, name)
        except AttributeError as exc:
            raise OSError(f"there is no {name}") from exc
        if function(*arguments):
            raise OSError(ctypes.get_errno(), f"{name} failed")


def _time(seconds: float) -> _Time:
    whole = int(seconds * _SECOND)
    return _Time(whole // _SECOND, whole % _SECOND)


CLOCKS: Final = {"cpu": time.CLOCK_PROCESS_CPUTIME_ID, "wall": time.CLOCK_MONOTONIC}
"""By what a window counts."""
