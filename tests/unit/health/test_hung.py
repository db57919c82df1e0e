"""Liveness of a process whose event loop hangs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from sage_obs.conventions import Probe
from sage_obs.health.board import HUNG_SECONDS, Board


@pytest.fixture
def hold() -> Iterator[threading.Event]:
    """Set at the end, whatever happens."""
    event = threading.Event()
    yield event
    event.set()


def test_a_loop_that_hangs_fails_liveness_until_it_goes_round_again(hold: threading.Event) -> None:
    """The first probe asks the loop, a later one finds that it has not answered; once it has, the process is alive again."""
    now = [100.0]
    board = Board(clock=lambda: now[0])
    held = threading.Event()

    async def main() -> None:
        board.seen_here()
        probe = asyncio.get_running_loop().run_in_executor

        def during() -> list[int]:
            held.wait(5)
            statuses = [board.liveness().status]
            now[0] += HUNG_SECONDS
            statuses.append(board.liveness().status)
            now[0] += 0.1
            statuses.append(board.liveness().status)
            hold.set()
            return statuses

        probing = probe(None, during)
        held.set()
        hold.wait(5)  # the loop hangs
        assert await probing == [200, 200, 503]
        await asyncio.sleep(0)
        assert (await probe(None, board.liveness)).status == 200
        assert (await board.answer_async(Probe.LIVENESS)).status == 200

    asyncio.run(main())


def test_a_process_without_a_loop_is_alive() -> None:
    """Threads serve, or nobody does yet: there is nothing that could hang."""
    assert Board().liveness().status == 200
