"""What a process waits for: every asyncio task with the chain of what it awaits, and every thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from sage_obs.profiling.profile import Frame, Kind, Labels, Profile, folded
from sage_obs.profiling.stacks import Key, awaiting, every, key_of, stack_of, task_name, threads

KIND: Final = Kind("goroutine", "count")
THREADS: Final = Kind("threadcreate", "count")
_MOST_TASKS: Final = 100_000
_RUNNING: Final = Frame("(the task that runs; its calls are those of its thread)")
_DONE: Final = Frame("(a coroutine without a frame)")


class Waiting(NamedTuple):
    """A task or a thread: what it is called, whether it runs or what it waits for, and where it stands."""

    kind: str
    name: str
    state: str
    key: Key

    @property
    def labels(self) -> Labels:
        """As a profile has it."""
        return (("kind", self.kind), ("state", self.state), (f"{self.kind}_name", self.name))


def every_task() -> list[Any]:
    """The tasks that are not done, on all loops."""
    found: list[Any] = []
    for name in (
        "_scheduled_tasks",
        "_all_tasks",
        "_eager_tasks",
    ):  # before 3.12 there is only the second; some are the same
        if (tasks := getattr(asyncio.tasks, name, None)) is not None:
            found += every(tasks)
    return [task for task in dict.fromkeys(found) if hasattr(task, "get_coro") and not task.done()][:_MOST_TASKS]


def waiting_tasks() -> Iterator[Waiting]:
    """Where each task stands. It is read while the loops go on, as a loop that hangs is one to be looked at."""
    running = {id(task) for task in list(getattr(asyncio.tasks, "_current_tasks", {}).values())}
    for task in every_task():
        if id(task) in running:
            yield Waiting("task", task_name(task), "running", ())
            continue
        key, what = awaiting(task.get_coro())
        yield Waiting("task", task_name(task), f"waits for {what}" if what else "is to run", key)


def waiting_threads() -> Iterator[Waiting]:
    """Where each thread stands."""
    names = {ident: thread.name for ident, thread in list(threading._active.items())}  # type: ignore[attr-defined] # noqa: SLF001
    for ident, frame in threads().items():
        yield Waiting("thread", names.get(ident, "of native code"), "", key_of(frame))


def waiting() -> list[Waiting]:
    """Tasks, then threads."""
    return [*waiting_tasks(), *waiting_threads()]


def profile(found: list[Waiting] | None = None) -> Profile:
    """How many wait where: Go's `goroutine` profile."""
    counted = Counter(waiting() if found is None else found)
    rows = [(_stack(one), (number,), one.labels) for one, number in counted.items()]
    return Profile((KIND,), folded(rows), KIND.type, KIND, 1, time.time_ns(), comments=("source: asyncio tasks and threads",))


def _stack(one: Waiting) -> tuple[Frame, ...]:
    return stack_of(one.key) or ((_RUNNING if one.state == "running" else _DONE),)


def created() -> Profile:
    """The threads by what they were started to run: Go's `threadcreate`, which knows who started them."""
    rows = [(stack_of(one.key)[-1:], (1,), (("thread_name", one.name),)) for one in waiting_threads()]
    return Profile((THREADS,), folded(rows), THREADS.type, THREADS, 1, time.time_ns(), comments=("the outermost call of each thread",))


def listing(found: list[Waiting], *, each: bool) -> str:
    """As text: those that stand at one place together, or `each` for itself, as Go's debug=1 and debug=2."""
    counted = Counter(found).most_common()
    groups = [(one, 1) for one, number in counted for _ in range(number)] if each else counted
    head = f"goroutine profile: total {len(found)}\n"
    return head + "".join(f"\n{_heading(one, number, each=each)}\n{_lines(one)}" for one, number in groups)


def _heading(one: Waiting, number: int, *, each: bool) -> str:
    state = f" [{one.state}]" if one.state else ""
    return f"{one.kind} {one.name}{state}:" if each else f"{number} {one.kind} {one.name}{state}"


def _lines(one: Waiting) -> str:
    return "".join(f"#\t{frame.name}\t{frame.file}:{frame.line}\n" for frame in _stack(one))


def tree(found: list[Waiting]) -> dict[str, object]:
    """As JSON: groups of tasks and threads with the number in each, the most first."""
    groups = [
        {"kind": one.kind, "name": one.name, "state": one.state, "count": number, "calls": [frame._asdict() for frame in _stack(one)]}
        for one, number in Counter(found).most_common()
    ]
    return {"total": len(found), "groups": groups}
