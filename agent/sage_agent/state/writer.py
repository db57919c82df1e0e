"""One thread that owns an SQLite database: what waits is done in one transaction, so that many callers share one commit."""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from sage_agent.state.base import StateError

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
_TOGETHER: Final = 256
"""So many operations in one transaction at most: a commit costs as much as some dozens of them."""
_BUSY_SECONDS: Final = 2.0
"""How long another process may hold the database."""


@dataclass(slots=True)
class _Order:
    work: Work[Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None

    def tell(self) -> None:
        """Say how it went, on the loop of whoever waits; who has left is not told."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Writer:
    """Runs functions on the database at `path`, one after the other, each of them whole or not at all."""

    def __init__(self, path: Path, *, schema: str) -> None:
        self._path = path
        self._schema = schema
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Make the database where there is none, and begin. Raises StateError."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))  # conversations are nobody else's; SQLite's files follow
            self._connection = self._connect()
        except (OSError, sqlite3.Error) as exc:
            raise StateError(f"The database {self._path} cannot be opened ({exc}).") from exc
        self._thread = threading.Thread(target=self._run, name="sage-agent-state", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether something waits to be done."""
        return not self._orders.empty()

    async def run(self, work: Work[T], *, seconds: float) -> T:
        """Have work done; its result once it is in the database. Raises StateError where that takes longer than `seconds`."""
        if self._thread is None:
            raise StateError(f"The database {self._path} is closed.")
        loop = asyncio.get_running_loop()
        order = _Order(work, loop, loop.create_future())
        self._orders.put(order)
        try:
            async with asyncio.timeout(seconds):
                result: T = await order.future
        except TimeoutError:
            raise StateError(f"The database {self._path} did not answer within {seconds:g} s.") from None
        return result

    def close(self) -> None:
        """Finish what was ordered, and let go."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._orders.put(None)
            thread.join(timeout=5.0)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA secure_delete=ON")  # what a user had erased is overwritten
        connection.executescript(self._schema)
        return connection

    def _run(self) -> None:
        while (orders := self._next()) is not None:
            self._do(orders)
        if self._connection is not None:
            self._connection.close()

    def _next(self) -> list[_Order] | None:
        """What waits, at least one; None where it is time to stop."""
        first = self._orders.get()
        orders = [] if first is None else [first]
        while first is not None and len(orders) < _TOGETHER:
            try:
                more = self._orders.get_nowait()
            except queue.Empty:
                break
            if more is None:
                self._orders.put(None)
                break
            orders.append(more)
        return orders or None

    def _do(self, orders: list[_Order]) -> None:
        try:
            connection = self._connection = self._connection or self._connect()
            connection.execute("BEGIN IMMEDIATE")
            try:
                for order in orders:
                    _do_one(connection, order)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except Exception as exc:  # noqa: BLE001 - whoever waits is told, and the thread goes on
            for order in orders:
                order.error = StateError(f"The database {self._path} cannot be written ({exc}).")
        self._tell(orders)

    def _tell(self, orders: list[_Order]) -> None:
        for loop in {order.loop for order in orders}:
            mine = [order for order in orders if order.loop is loop]
            if not loop.is_closed():
                loop.call_soon_threadsafe(_tell_all, mine)


def _tell_all(orders: list[_Order]) -> None:
    for order in orders:
        order.tell()


def _do_one(connection: sqlite3.Connection, order: _Order) -> None:
    """An operation inside of the transaction; one that fails is undone and the others stay."""
    if order.future.cancelled():
        return
    connection.execute("SAVEPOINT one")
    try:
        order.result = order.work(connection)
    except sqlite3.Error as exc:
        connection.execute("ROLLBACK TO one")
        order.error = StateError(f"The database cannot be asked ({exc}).")
    connection.execute("RELEASE one")
