"""What a supervisor and its workers say to each other: whole JSON messages over a pair of sockets."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import orjson

from sage_agent.problems import unavailable

_log = logging.getLogger("sage_agent")
_LONGEST: Final = 64 * 1024
_PATIENCE: Final = 5.0
"""How long a worker waits for what became of a change; the supervisor has less patience with the other workers."""
Said = dict[str, Any]
Apply = Callable[[str, Any], Awaitable[None]]
"""Makes a change, by its name and value, in one process."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How many workers were asked to change something, and how many did."""

    asked: int
    took: int


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a line. Messages stay whole, and the end of one process is heard by the other."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mine.setblocking(False)
    return mine, theirs


def say(line: socket.socket, said: Said) -> bool:
    """Say something, without waiting for anybody; whether it will be heard."""
    try:
        line.send(orjson.dumps(said))
    except OSError:  # it has ended, or has not listened for long
        return False
    return True


def hear(line: socket.socket) -> Said | None:
    """What was said; None from whoever has ended."""
    try:
        heard = line.recv(_LONGEST)
    except BlockingIOError:
        return {}
    except OSError:
        return None
    found: Said | None = orjson.loads(heard) if heard else None
    return found


class WorkerLine:
    """A worker's end. `apply` makes here what some worker was asked to change everywhere."""

    def __init__(self, line: socket.socket, apply: Apply) -> None:
        self._line = line
        self._apply = apply
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Reach]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @contextmanager
    def listening(self, *, ended: Callable[[], None], cut: Callable[[], None]) -> Iterator[None]:
        """Do what the supervisor says; `ended` is called when there is none any more, `cut` when requests are to be cut."""
        loop = asyncio.get_running_loop()

        def heard() -> None:
            said = hear(self._line)
            if said is None:
                loop.remove_reader(self._line)
                ended()
            elif said.get("say") == "cut":
                cut()
            elif said.get("say") == "reach":
                self._arrive(said)
            elif said.get("say") == "change":
                task = loop.create_task(self._change(said))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        loop.add_reader(self._line, heard)
        try:
            yield
        finally:
            loop.remove_reader(self._line)

    def ready(self) -> None:
        """Say that connections are taken."""
        say(self._line, {"say": "ready"})

    def alive(self) -> None:
        """Say that the event loop goes round."""
        say(self._line, {"say": "alive"})

    async def everywhere(self, name: str, value: Any = None) -> Reach:
        """Have a change made by every worker. Raises Problem (503) where the supervisor does not answer."""
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            if not say(self._line, {"say": "change", "number": number, "name": name, "value": value}):
                raise unavailable("The workers' supervisor does not listen.")
            return await asyncio.wait_for(future, _PATIENCE)
        except TimeoutError:
            raise unavailable("The workers' supervisor does not answer.") from None
        finally:
            del self._waiting[number]

    def _arrive(self, said: Said) -> None:
        future = self._waiting.get(said["number"])
        if future is not None and not future.done():
            future.set_result(Reach(said["asked"], said["took"]))

    async def _change(self, said: Said) -> None:
        took = True
        try:
            await self._apply(said["name"], said["value"])
        except Exception:  # noqa: BLE001 - whoever asked is told that it was not taken
            _log.exception("a change was not made", extra={"change": said["name"]})
            took = False
        say(self._line, {"say": "changed", "change": said["change"], "took": took})


def worker_line(environ: MutableMapping[str, str], apply: Apply) -> WorkerLine | None:
    """The line to the supervisor of this worker; None in a process that has none. No child of it is to believe that it has one."""
    number = environ.pop("SAGE_SUPERVISOR_FD", "")
    if not number.isdigit():
        return None
    line = socket.socket(fileno=int(number))
    os.set_inheritable(line.fileno(), False)
    line.setblocking(False)
    return WorkerLine(line, apply)
