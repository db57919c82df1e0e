"""What is tried again, where and when, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sage_obs
from sage_agent.flow.calls import ModelCalls
from sage_agent.llm.breaker import State
from sage_agent.llm.limiter import Limiter
from sage_agent.llm.providers.base import Delta, Prompt, ProviderError
from sage_agent.llm.targets import Target
from sage_agent.problems import Problem
from sage_obs import testing
from sage_obs.conventions import ErrorType
from tests.support.providers import BREAKER, NEVER, Told, in_virtual_time, retries_of, target_of

_PROMPT = Prompt("hi", 5)
_LIMITED, _DOWN = ErrorType.RATE_LIMITED, ErrorType.UNAVAILABLE


def _errors(kind: ErrorType, number: int = 1, *, after: int | None = None) -> list[ProviderError]:
    return [ProviderError(kind, "no", retry_after=after) for _ in range(number)]


def _ask(targets: Sequence[Target], *, deadline: float = 100.0, max_wait: float = 30.0, timeout: float = 60.0, rounds: int = 1000) -> str:
    """The model that answers. Raises Problem."""

    async def run() -> str:
        calls = ModelCalls(retries_of(targets, max_wait=max_wait, rounds=rounds), timeout=timeout)
        return (await calls.complete(_PROMPT, deadline=deadline))[0]

    return in_virtual_time(run)


def _stream(targets: Sequence[Target], emitted: list[tuple[str, str]]) -> str:
    async def emit(model: str, delta: Delta) -> None:
        emitted.append((model, delta.text))

    async def run() -> str:
        return await ModelCalls(retries_of(targets), timeout=60.0).stream(_PROMPT, deadline=100.0, emit=emit)

    return in_virtual_time(run)


def test_keys_then_fallbacks_then_a_wait() -> None:
    """The order is every key, every target, a pause, and the same again; each step is counted as what it is."""
    first = [Told("a1", _errors(_LIMITED, 2), name="a"), Told("a2", _errors(_LIMITED, 2), name="a")]
    second = Told("b", _errors(_DOWN), name="b")
    with testing.capture() as captured:
        assert _ask([target_of(*first), target_of(second)]) == "b"
        retries = captured.value("sage_llm_retries_total", provider="a")
        fallbacks = captured.value("sage_llm_fallbacks_total", from_provider="a", to_provider="b", reason="rate_limited")
        calls = captured.value("sage_llm_api_calls_total")
    assert [one.asked for one in (*first, second)] == [[0.0, 0.5], [0.0, 0.5], [0.0, 0.5]]
    assert (retries, fallbacks, calls) == (3.0, 2.0, 6.0)


def test_a_rate_limited_key_stands_back_for_the_next_requests() -> None:
    """The request after begins with the key that worked."""
    keys = [Told("a1", _errors(_LIMITED)), Told("a2"), Told("a3")]
    target = target_of(*keys)
    assert [_ask([target]), _ask([target])] == ["a2", "a2"]
    assert [len(key.asked) for key in keys] == [1, 2, 0]


def test_retry_after_is_kept_to_and_capped() -> None:
    """Seven seconds are waited, a hundred only as long as the cap."""
    told = Told(errors=[*_errors(_LIMITED, after=7), *_errors(_LIMITED, after=100)])
    _ask([target_of(told)], max_wait=20.0)
    assert told.asked == [0.0, 7.0, 27.0]


def test_a_retry_after_of_nothing_is_no_tight_loop() -> None:
    """Pauses grow even where the provider asks for none."""
    told = Told(errors=_errors(_LIMITED, 4, after=0))
    _ask([target_of(told)])
    assert told.asked == [0.0, 0.5, 1.5, 3.5, 7.5]


def test_pauses_are_not_the_requests_overhead() -> None:
    """`sage_obs.waiting` is around them; what it does is tested where it is."""
    entered = 0
    original = sage_obs.waiting

    def watched() -> object:
        nonlocal entered
        entered += 1
        return original()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sage_obs, "waiting", watched)
        _ask([target_of(Told(errors=_errors(_DOWN, 2)))])
    assert entered == 2


@pytest.mark.parametrize("kind", [kind for kind in ErrorType if kind not in {_LIMITED, _DOWN}])
def test_what_would_fail_again_is_not_repeated(kind: ErrorType) -> None:
    """Neither the next key nor a fallback is asked."""
    first, key, other = Told(errors=_errors(kind)), Told(), Told()
    with pytest.raises(Problem):
        _ask([target_of(first, key), target_of(other)])
    assert (key.asked, other.asked) == ([], [])


def test_without_time_for_the_pause_the_caller_is_told_at_once() -> None:
    """The last failure, with what the provider asked for."""
    told = Told(errors=_errors(_LIMITED, after=12))
    with pytest.raises(Problem) as caught:
        _ask([target_of(told)], deadline=10.0)
    assert (caught.value.status, caught.value.retry_after, told.asked) == (429, 12, [0.0])


def test_a_call_that_took_too_long_is_a_timeout() -> None:
    """It took its time, and another would take as long."""
    slow, other = Told(seconds=90.0), Told()
    with pytest.raises(Problem) as caught:
        _ask([target_of(slow), target_of(other)], timeout=60.0)
    assert (caught.value.status, other.asked) == (504, [])


def test_a_stream_is_tried_again_before_its_first_token() -> None:
    """Usage alone is no token: the fallback answers, and nothing of the failed attempt was said."""
    emitted: list[tuple[str, str]] = []
    assert _stream([target_of(Told("a", _errors(_DOWN))), target_of(Told("b"))], emitted) == "b"
    assert [one for one in emitted if one[1]] == [("b", "b")]


def test_a_stream_is_never_tried_again_after_its_first_token() -> None:
    """Half an answer is not followed by another one."""
    emitted: list[tuple[str, str]] = []
    other = Told("b")
    with pytest.raises(Problem) as caught:
        _stream([target_of(Told("a", _errors(_DOWN), pieces=1)), target_of(other)], emitted)
    assert (caught.value.status, other.asked) == (503, [])
    assert [one for one in emitted if one[1]] == [("a", "half")]


def test_an_open_breaker_is_skipped_at_once() -> None:
    """After four failures the target is not asked any more, and the step is counted with its reason."""
    dead, alive = Told("a", _errors(_DOWN, 9), name="a"), Told("b", name="b")
    targets = [target_of(dead, breaker=BREAKER), target_of(alive)]
    with testing.capture() as captured:
        assert [_ask(targets) for _ in range(6)] == ["b"] * 6
        skipped = captured.value("sage_llm_fallbacks_total", from_provider="a", to_provider="b", reason="breaker_open")
    assert (len(dead.asked), skipped) == (4, 2.0)


def test_with_every_breaker_open_the_caller_is_told_when_to_come_back() -> None:
    """503 and the least of the cool-downs, without a call and without a wait."""
    dead = Told("a", _errors(_DOWN, 9))
    target = target_of(dead, breaker=BREAKER)
    problems = []
    for _ in range(3):
        with pytest.raises(Problem) as caught:
            _ask([target], max_wait=8.0)
        problems.append((caught.value.status, caught.value.retry_after))
    assert problems == [(503, 15)] * 3
    assert len(dead.asked) == 4


def test_rate_limits_do_not_open_a_breaker() -> None:
    """A target that limits a key's rate works."""
    target = target_of(Told(errors=_errors(_LIMITED, 6)), breaker=BREAKER)
    _ask([target])
    assert target.breaker.state is State.CLOSED


@pytest.mark.parametrize(("deadline", "state"), [(100.0, State.OPEN), (30.0, State.CLOSED)])
def test_only_a_call_that_had_its_time_counts_against_the_target(deadline: float, state: State) -> None:
    """Requests that come to their call late, after a long queue, do not make a healthy target look broken."""
    target = target_of(Told(seconds=90.0), breaker=BREAKER)
    for _ in range(4):
        with pytest.raises(Problem, match="took too long" if state is State.OPEN else "time was over"):
            _ask([target], deadline=deadline, timeout=60.0)
    assert target.breaker.state is state


def test_a_caller_that_leaves_during_the_probe_leaves_it_to_the_next() -> None:
    """A cancelled call is no verdict on the target."""
    now = [0.0]
    dead = Told("a", _errors(_DOWN, 4), seconds=1.0)
    target = target_of(dead, breaker=BREAKER, clock=lambda: now[0])
    with pytest.raises(Problem):
        _ask([target])
    now[0] = 20.0

    async def leave() -> None:
        asking = asyncio.ensure_future(ModelCalls(retries_of([target]), timeout=60.0).complete(_PROMPT, deadline=100.0))
        await asyncio.sleep(0.5)
        assert target.breaker.state is State.HALF_OPEN
        asking.cancel()
        await asyncio.wait([asking])

    in_virtual_time(leave)
    assert _ask([target]) == "a"


_FAILURES = st.lists(
    st.builds(
        lambda kind, after: ProviderError(kind, "no", retry_after=after),
        st.sampled_from([_LIMITED, _LIMITED, _DOWN, _DOWN, ErrorType.TIMEOUT, ErrorType.AUTH]),
        st.none() | st.integers(0, 90),
    ),
    max_size=30,
)
_KEYS = st.lists(st.tuples(_FAILURES, st.sampled_from([0.0, 0.3, 4.0, 50.0])), min_size=1, max_size=3)


@given(targets=st.lists(_KEYS, min_size=1, max_size=3), deadline=st.floats(0.1, 120.0), guarded=st.booleans())
def test_the_deadline_is_never_exceeded(targets: list[list[tuple[list[ProviderError], float]]], deadline: float, *, guarded: bool) -> None:
    """However calls fail and however long they take, a request ends by its deadline, and no attempt begins after it."""
    told = [[Told(f"{number}", list(errors), seconds) for errors, seconds in keys] for number, keys in enumerate(targets)]
    breaker = BREAKER if guarded else NEVER

    async def run() -> float:
        calls = ModelCalls(retries_of([target_of(*keys, breaker=breaker) for keys in told]), timeout=60.0)
        with contextlib.suppress(Problem):
            await calls.complete(_PROMPT, deadline=deadline)
        return asyncio.get_running_loop().time()

    assert in_virtual_time(run) <= deadline + 0.01
    assert all(moment <= deadline for keys in told for one in keys for moment in one.asked)


def test_a_lone_provider_that_is_down_is_asked_so_often_and_no_more() -> None:
    """Three pauses of half a second, one and two: its callers know after 3.5 s, whatever their deadline."""
    told = Told(errors=_errors(_DOWN, 10))
    with pytest.raises(Problem) as caught:
        _ask([target_of(told)], rounds=3, deadline=1000.0)
    assert caught.value.error_type is _DOWN
    assert told.asked == [0.0, 0.5, 1.5, 3.5]


def _limited_target(told: Told, most: int) -> Target:
    return Target([told], target_of(told).breaker, Limiter("t", most))


def _together(targets: Sequence[Target], calls: int, *, deadline: float = 100.0, max_wait: float = 30.0) -> list[str]:
    """What becomes of calls made at once: the models, or the kinds of error."""

    async def run() -> list[str]:
        asking = ModelCalls(retries_of(targets, max_wait=max_wait), timeout=60.0)
        outcomes = await asyncio.gather(*(asking.complete(_PROMPT, deadline=deadline) for _ in range(calls)), return_exceptions=True)
        return [one.error_type.value if isinstance(one, Problem) else one[0] for one in outcomes if not isinstance(one, OSError)]  # type: ignore[index]

    return in_virtual_time(run)


def test_fewer_calls_are_made_at_once_after_a_429() -> None:
    """Eight at once are refused together and count as one refusal; four at a time then get through, and everybody is answered."""
    told = Told(errors=_errors(_LIMITED, 8), seconds=1.0)
    target = _limited_target(told, 8)
    assert _together([target], 8) == ["m"] * 8
    assert told.asked[:8] == [0.0] * 8
    assert max(told.asked.count(moment) for moment in told.asked[8:]) == 4


def test_who_waits_too_long_for_a_crowded_provider_goes_on_to_the_next() -> None:
    """Half a second where there is a next one; the breaker hears nothing of a call that was not made."""
    slow, other = Told("slow", seconds=10.0), Told("other")
    crowded = _limited_target(slow, 1)
    assert sorted(_together([crowded, target_of(other)], 3)) == ["other", "other", "slow"]
    assert other.asked == [0.5, 0.5]
    assert crowded.breaker.state is State.CLOSED


def test_who_waits_too_long_for_the_only_provider_is_told_so() -> None:
    """As rate limited, which it is, at the end of the longest pause; a call that leaves lets the next one in."""
    slow = Told(seconds=10.0)
    assert sorted(_together([_limited_target(slow, 1)], 3, max_wait=4.0, deadline=9.0)) == ["rate_limited", "rate_limited", "timeout"]
    assert _together([_limited_target(Told(seconds=2.0), 1)], 3) == ["m", "m", "m"]
