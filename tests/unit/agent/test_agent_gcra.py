"""The arithmetic of rate limits."""

from __future__ import annotations

import pytest

from sage_agent.state import gcra
from sage_agent.state.base import Rate

_TEN_A_SECOND = Rate(per_second=10.0, burst=3)


def test_a_burst_is_admitted_and_the_next_is_told_when_to_come() -> None:
    """Three at once, then one every tenth of a second."""
    arrival, answers = 0.0, []
    for _ in range(4):
        arrival, taken = gcra.take(arrival, _TEN_A_SECOND, cost=1, now=100.0)
        answers.append((taken.allowed, taken.remaining))
    assert answers == [(True, 2), (True, 1), (True, 0), (False, 0)]
    _, refused = gcra.take(arrival, _TEN_A_SECOND, cost=1, now=100.0)
    assert refused.retry_after == pytest.approx(0.1)
    assert refused.reset_after == pytest.approx(0.3)
    _, later = gcra.take(arrival, _TEN_A_SECOND, cost=1, now=100.0 + refused.retry_after)
    assert later.allowed


def test_a_refusal_takes_nothing() -> None:
    """Who is refused does not push the moment back at which there is enough again."""
    arrival = 100.3
    after, taken = gcra.take(arrival, _TEN_A_SECOND, cost=1, now=100.0)
    assert (after, taken.allowed) == (arrival, False)


def test_more_than_there_ever_is_is_refused() -> None:
    """A cost above the burst never fits."""
    _, taken = gcra.take(0.0, _TEN_A_SECOND, cost=4, now=100.0)
    assert not taken.allowed
    assert taken.retry_after > 0


def test_a_clock_that_was_put_back_keeps_nobody_out_for_longer_than_a_minute_and_the_whole_limit() -> None:
    """A moment that no clock going forward can have written counts as over."""
    whole = 0.3
    _, soon = gcra.take(99.9 + whole + gcra.STEPPED_SECONDS, _TEN_A_SECOND, cost=1, now=100.0)
    assert not soon.allowed
    _, stepped = gcra.take(100.1 + whole + gcra.STEPPED_SECONDS, _TEN_A_SECOND, cost=1, now=100.0)
    assert (stepped.allowed, stepped.remaining) == (True, 2)
