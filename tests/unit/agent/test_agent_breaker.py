"""The circuit breaker, by a clock that is set by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_agent.llm.breaker import Breaker, State
from sage_obs import testing
from tests.support.providers import BREAKER


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def _breaker() -> tuple[Breaker, _Clock]:
    clock = _Clock()
    return Breaker("t", BREAKER, clock=clock), clock


def _call(breaker: Breaker, *, failed: bool) -> None:
    era = breaker.admit()
    assert era is not None
    breaker.record(era, failed=failed)


def _opened() -> tuple[Breaker, _Clock]:
    breaker, clock = _breaker()
    for _ in range(4):
        _call(breaker, failed=True)
    assert breaker.state is State.OPEN
    return breaker, clock


def test_it_opens_at_the_share_of_enough_calls() -> None:
    """Two failures in three calls are too few calls; two in four open it."""
    breaker, _ = _breaker()
    for failed in (True, True, False):
        _call(breaker, failed=failed)
    assert breaker.admit() is not None
    _call(breaker, failed=False)
    assert breaker.state is State.OPEN
    assert breaker.admit() is None


def test_failures_out_of_the_window_are_forgotten() -> None:
    """Three failures half a minute ago and one now are no reason."""
    breaker, clock = _breaker()
    for _ in range(3):
        _call(breaker, failed=True)
    clock.now += 31
    _call(breaker, failed=True)
    assert breaker.state is State.CLOSED


def test_after_the_cooldown_one_call_goes_through_to_see() -> None:
    """While that one is under way no other is admitted; its success closes the breaker."""
    breaker, clock = _opened()
    clock.now += 14.9
    assert breaker.admit() is None
    assert breaker.wait == pytest.approx(0.1)
    clock.now += 0.2
    era = breaker.admit()
    assert era is not None
    assert (breaker.state, breaker.admit()) == (State.HALF_OPEN, None)
    breaker.record(era, failed=False)
    assert breaker.state is State.CLOSED


def test_a_failed_probe_opens_it_for_another_cooldown() -> None:
    """The time counts from the probe's failure."""
    breaker, clock = _opened()
    clock.now += 20
    _call(breaker, failed=True)
    assert (breaker.state, breaker.wait) == (State.OPEN, 15.0)


def test_a_probe_that_says_nothing_leaves_its_turn_to_the_next() -> None:
    """A caller that left in the middle of it does not keep the target shut."""
    breaker, clock = _opened()
    clock.now += 20
    era = breaker.admit()
    assert era is not None
    breaker.release(era)
    assert breaker.admit() is not None


def test_calls_from_before_say_nothing_of_the_present() -> None:
    """A call that began before it opened neither closes nor opens it when it ends during the probe."""
    breaker, clock = _breaker()
    late = breaker.admit()
    assert late is not None
    for _ in range(4):
        _call(breaker, failed=True)
    clock.now += 20
    assert breaker.admit() is not None
    breaker.record(late, failed=False)
    breaker.release(late)
    assert breaker.state is State.HALF_OPEN


def test_its_state_is_on_metrics() -> None:
    """0 closed, 1 open, 0.5 half-open."""
    seen = []
    with testing.capture() as captured:
        breaker, clock = _breaker()
        breaker.expose()
        seen.append(captured.value("sage_agent_breaker_state", target="t"))
        for _ in range(4):
            _call(breaker, failed=True)
        seen.append(captured.value("sage_agent_breaker_state", target="t"))
        clock.now += 20
        breaker.admit()
        seen.append(captured.value("sage_agent_breaker_state", target="t"))
    assert seen == [0.0, 1.0, 0.5]


@given(st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=60))
def test_it_never_stays_shut(calls: list[tuple[float, bool]]) -> None:
    """Whatever happened, once every call is over none is left half-open, and after a cool-down a call is admitted."""
    breaker, clock = _breaker()
    for seconds, failed in calls:
        clock.now += seconds
        if (era := breaker.admit()) is not None:
            breaker.record(era, failed=failed)
        assert breaker.state is not State.HALF_OPEN
    clock.now += BREAKER.cooldown
    assert breaker.admit() is not None
