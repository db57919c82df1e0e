from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from sage_obs.background import Batcher


@given(st.lists(st.tuples(st.integers(), st.booleans()), max_size=200), st.integers(1, 50))
def test_everything_arrives_in_order_and_in_batches(items: list[tuple[int, bool]], batch: int) -> None:
    """What is put is delivered once, in order, in batches no larger than asked for."""
    batches: list[list[int]] = []
    batcher: Batcher[int] = Batcher(batches.append, name="t", capacity=1000, batch=batch, delay=0.001, on_drop=lambda _: None)
    for item, urgent in items:
        batcher.put(item, urgent=urgent)
    assert batcher.close(10)
    assert [item for one in batches for item in one] == [item for item, _ in items]
    assert all(len(one) <= batch for one in batches)


def test_a_delivery_that_raises_loses_its_batch_and_not_the_thread() -> None:
    """The loss is reported, and what comes next is delivered."""
    delivered: list[int] = []
    dropped: list[int] = []

    def deliver(batch: list[int]) -> None:
        if batch == [1]:
            raise RuntimeError("no")
        delivered.extend(batch)

    batcher: Batcher[int] = Batcher(deliver, name="t", capacity=10, batch=1, delay=0.0, on_drop=dropped.append)
    batcher.put(1, urgent=True)
    batcher.put(2, urgent=True)
    assert batcher.close(10)
    assert (delivered, dropped) == ([2], [1])


def test_flush_and_close_wait_no_longer_than_told() -> None:
    """With a delivery that hangs both return in time, and close reports what was left."""
    release = threading.Event()
    dropped: list[int] = []

    def deliver(_: list[int]) -> None:
        release.wait()

    batcher: Batcher[int] = Batcher(deliver, name="t", capacity=10, batch=1, delay=0.0, on_drop=dropped.append)
    batcher.put(1, urgent=True)
    batcher.put(2)
    assert not batcher.flush(0.02)
    assert not batcher.close(0.02)
    assert dropped == [1]
    release.set()


def test_nobody_puts_in_vain_while_the_thread_goes_to_sleep() -> None:
    """Items put one by one from several threads all arrive without a flush: no wake-up is lost."""
    arrived = threading.Semaphore(0)

    def deliver(batch: list[int]) -> None:
        for _ in batch:
            arrived.release()

    batcher: Batcher[int] = Batcher(deliver, name="t", capacity=100_000, batch=100, delay=0.0, on_drop=lambda _: None)

    def put() -> None:
        for number in range(2000):
            batcher.put(number)

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(8000):
        assert arrived.acquire(timeout=10)
    for thread in threads:
        thread.join()
    batcher.close(5)


def test_what_is_put_after_the_end_is_reported_as_dropped() -> None:
    """Nobody empties the queue of a closed batcher, so nothing is left in it uncounted, and nobody waits for it."""
    delivered: list[int] = []
    dropped: list[int] = []
    batcher: Batcher[int] = Batcher(delivered.extend, name="t", capacity=10, batch=1, delay=0.0, on_drop=dropped.append)
    batcher.put(1)
    assert batcher.close(10)
    batcher.put(2)
    batcher.put(3, urgent=True)
    assert not batcher.flush(10)
    assert (delivered, dropped) == ([1], [1, 1])


def test_what_was_reported_as_dropped_is_not_delivered_later() -> None:
    """A delivery that comes to itself after the end finds nothing more to deliver."""
    release, delivered, dropped = threading.Event(), list[int](), list[int]()

    def deliver(batch: list[int]) -> None:
        release.wait()
        delivered.extend(batch)

    batcher: Batcher[int] = Batcher(deliver, name="late", capacity=10, batch=1, delay=0.0, on_drop=dropped.append)
    batcher.put(1, urgent=True)
    batcher.flush(0.02)
    batcher.put(2)
    assert not batcher.close(0.02)
    release.set()
    assert batcher.close(10)
    assert (delivered, dropped) == ([1], [1])


def test_the_thread_does_not_wait_for_itself() -> None:
    """A flush asked for in the middle of a delivery returns at once."""
    answers: list[bool] = []
    batcher: Batcher[int] = Batcher(
        lambda _: answers.append(batcher.flush(10)), name="t", capacity=10, batch=1, delay=0.0, on_drop=lambda _: None
    )
    batcher.put(1, urgent=True)
    assert batcher.close(5)
    assert answers == [False]
