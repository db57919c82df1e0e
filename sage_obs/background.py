"""A bounded queue emptied by a daemon thread: how log lines and spans leave the request path."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class _Marker(threading.Event):
    """Set when everything put before it has been delivered."""


class Batcher(Generic[T]):
    """Hands what is `put` to `deliver` in batches, from a thread of its own.

    `capacity` items wait at most: what comes on top is dropped and reported to `on_drop`. A batch is collected for `delay` seconds,
    unless an item is urgent. What `deliver` raises loses its batch, which is reported too. No call waits for the thread except `flush`
    and `close`, and those only for as long as they are told.

    The thread is woken through a SimpleQueue, which alone may be entered again from a destructor that runs in the middle of it.
    """

    def __init__(
        self,
        deliver: Callable[[list[T]], None],
        *,
        name: str,
        capacity: int,
        batch: int,
        delay: float,
        on_drop: Callable[[int], None],
    ) -> None:
        self._deliver = deliver
        self._name = name
        self._capacity = capacity
        self._batch = batch
        self._delay = delay
        self._on_drop = on_drop
        self._begin()

    def _begin(self) -> None:
        self._items: deque[T | _Marker] = deque()
        self._signals: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._awake = False
        self._closing = False
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        self._thread.start()

    def put(self, item: T, *, urgent: bool = False) -> None:
        """Queue an item; an urgent one is not kept waiting for company. After `close` it is dropped."""
        if self._closed or len(self._items) >= self._capacity:
            self._on_drop(1)
            return
        self._items.append(item)
        if urgent:
            self._signals.put(True)
        elif not self._awake:
            self._awake = True
            self._signals.put(False)

    def flush(self, timeout: float) -> bool:
        """Deliver what is queued now, waiting at most `timeout` seconds; whether it all went out. The thread itself does not wait."""
        if self._closed or threading.get_ident() == self._thread.ident:
            return False
        marker = _Marker()
        self._items.append(marker)
        self._signals.put(True)
        return marker.wait(max(0.0, timeout))

    def close(self, timeout: float) -> bool:
        """Deliver what is queued and end, waiting at most `timeout` seconds; what is left then is dropped and reported."""
        self._closing = True
        self._signals.put(True)
        self._thread.join(max(0.0, timeout))
        self._closed = True
        if left := self._take_what_is_left():
            self._on_drop(left)
        return not self._thread.is_alive()

    def _take_what_is_left(self) -> int:
        """Empty the queue, so that a thread that is only late does not deliver what was reported as dropped; how many items there were."""
        left = 0
        with suppress(IndexError):
            while True:
                left += not isinstance(self._items.popleft(), _Marker)
        return left

    def restart_after_fork(self) -> None:
        """Begin anew in a forked child: the thread stayed in the parent, and so does what was queued there."""
        if not self._closing:
            self._begin()

    def _work(self) -> None:
        while True:
            self._await_a_batch()
            self._awake = False
            self._drain()
            if self._closing and not self._items:
                return

    def _await_a_batch(self) -> None:
        """Wait for the first item, and then for company until the delay is over or somebody is in a hurry."""
        urgent = self._signals.get()
        deadline = time.monotonic() + self._delay
        while not urgent:
            try:
                urgent = self._signals.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return

    def _drain(self) -> None:
        """Hand over what is queued; what is put meanwhile as well."""
        while taken := self._take():
            items: list[T] = []
            for item in taken:
                if isinstance(item, _Marker):
                    self._hand_over(items)
                    items = []
                    item.set()
                else:
                    items.append(item)
            self._hand_over(items)

    def _take(self) -> list[T | _Marker]:
        """Up to a batch of what is queued; fewer where `close` has taken the rest meanwhile."""
        taken: list[T | _Marker] = []
        take, keep = self._items.popleft, taken.append
        with suppress(IndexError):
            for _ in range(self._batch):
                keep(take())
        return taken

    def _hand_over(self, batch: list[T]) -> None:
        try:
            if batch:
                self._deliver(batch)
        except Exception:  # noqa: BLE001 - the thread must outlive whatever is wrong with one batch
            self._on_drop(len(batch))
