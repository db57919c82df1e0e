"""Stacks of threads and of waiting coroutines, as cheap keys first and as frames once somebody wants to see them."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Iterator
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final

from sage_obs.profiling.profile import Frame, Stack

Key = tuple[CodeType | int, ...]
"""Code and line by turns, the innermost call first: made without looking anything up."""

DEPTH: Final = 128
"""Calls that are kept of a stack, the innermost; what is further out is one frame."""
_REST: Final = Frame("(calls further out)")
_NUMBERED: Final = re.compile(r"Task-\d+", re.ASCII)
_LABEL: Final = 100
"""Characters of a label's value."""


_WRAPPERS: Final = frozenset({"async_generator_asend", "async_generator_athrow", "coroutine_wrapper", "anext_awaitable"})
"""What stands between a coroutine and what it awaits, and tells nobody what that is but the garbage collector."""
_SUSPENDED: Final = (CoroutineType, GeneratorType, AsyncGeneratorType)


def key_of(frame: FrameType | None) -> Key:
    """The calls under way in a thread, from this one outwards."""
    parts: list[CodeType | int] = []
    add = parts.append
    for _ in range(DEPTH):
        if frame is None:
            return tuple(parts)
        add(frame.f_code)
        add(frame.f_lineno or 0)
        frame = frame.f_back
    add(0)
    return tuple(parts)


def stack_of(key: Key) -> Stack:
    """The frames of a key."""
    pairs = zip(key[0::2], key[1::2], strict=False)
    found = tuple(frame_of(code, line) for code, line in pairs if isinstance(code, CodeType) and isinstance(line, int))
    return (*found, _REST) if len(key) % 2 else found


def frame_of(code: CodeType, line: int) -> Frame:
    """A line of a function."""
    return Frame(code.co_qualname, code.co_filename, code.co_firstlineno, line)


def threads() -> dict[int, FrameType]:
    """The innermost call of each thread, by its identifier."""
    return sys._current_frames()  # noqa: SLF001 - there is no other way to see a stack


def awaiting(coroutine: Any) -> tuple[Key, str]:
    """The chain of what a coroutine awaits, the innermost first, and the type it ends in: `Future`, `FutureIter`, a library's own."""
    chain: list[tuple[CodeType, int]] = []
    what = coroutine
    for _ in range(DEPTH):
        frame, after = _inside(what)
        if frame is None:
            break
        chain.append((frame.f_code, frame.f_lineno or 0))
        what = after
    return tuple(part for pair in reversed(chain) for part in pair), "" if what is None else type(what).__name__


def _inside(what: Any) -> tuple[FrameType | None, Any]:
    """The frame a suspended thing stands in, and what it awaits; coroutine, generator and asynchronous generator in turn."""
    for prefix, awaited in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
        frame = getattr(what, f"{prefix}_frame", None)
        if isinstance(frame, FrameType):
            return frame, getattr(what, awaited, None)
    if type(what).__name__ in _WRAPPERS:
        return next((_inside(one) for one in gc.get_referents(what) if isinstance(one, _SUSPENDED)), (None, None))
    return None, None


def task_name(task: Any) -> str:
    """The name a task was given; one that is only numbered goes by its coroutine, so that there are as many names as kinds of task."""
    name = task.get_name() if hasattr(task, "get_name") else ""
    if name and not _NUMBERED.fullmatch(name):
        return str(name)[:_LABEL]
    coroutine = task.get_coro() if hasattr(task, "get_coro") else None
    return str(getattr(coroutine, "__qualname__", "") or type(task).__name__)[:_LABEL]


def every(items: Any) -> list[Any]:
    """The members of a set that others change meanwhile; Raises RuntimeError where it never holds still."""
    for _ in range(1000):
        try:
            return list(items)
        except RuntimeError:  # it has changed while it was read
            continue
    raise RuntimeError("the tasks never held still")


def outwards(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame and those that called it."""
    while frame is not None:
        yield frame
        frame = frame.f_back
