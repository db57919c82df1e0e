"""How many calls a target bears, and what providers say is left of their limits."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_agent.gate import Gate
from sage_agent.llm.limiter import Limiter
from sage_agent.llm.quota import read_quota
from sage_obs import testing


def _run(limiter: Limiter, outcomes: list[bool | None]) -> None:
    """One call after the other."""

    async def run() -> None:
        for limited in outcomes:
            era = limiter.enter()
            assert era is not None
            limiter.leave(era, limited=limited)

    asyncio.run(run())


def test_a_refusal_halves_and_as_many_successes_add_one() -> None:
    """From 8 to 4, and with four calls that went well to nearly 5; what says nothing changes nothing."""
    limiter = Limiter("t", 8)
    _run(limiter, [True])
    assert limiter.limit == 4
    _run(limiter, [None, False, False, False, False])
    assert limiter.limit == 4
    _run(limiter, [False])
    assert limiter.limit == 5


def test_refusals_of_calls_that_began_together_count_once() -> None:
    """What began before the limit fell says nothing of the limit there is."""

    async def run() -> Limiter:
        limiter = Limiter("t", 8)
        eras = [limiter.enter() for _ in range(8)]
        for era in eras:
            assert era is not None
            limiter.leave(era, limited=True)
        return limiter

    assert asyncio.run(run()).limit == 4


@given(st.lists(st.sampled_from([True, False, None]), max_size=60), st.integers(1, 20))
def test_the_limit_stays_between_one_and_the_most(outcomes: list[bool | None], most: int) -> None:
    """Whatever happens, somebody may try, and nobody more than was configured."""
    limiter = Limiter("t", most)
    _run(limiter, outcomes)
    assert 1 <= limiter.limit <= most


def test_the_limit_is_on_metrics() -> None:
    """From the start, and when it changes."""
    with testing.capture() as captured:
        limiter = Limiter("openai http://h m", 8)
        limiter.expose()
        before = captured.value("sage_llm_concurrency_limit", target="openai http://h m")
        _run(limiter, [True])
        assert (before, captured.value("sage_llm_concurrency_limit", target="openai http://h m")) == (8.0, 4.0)


@given(st.lists(st.tuples(st.sampled_from(["enter", "release", "resize"]), st.integers(1, 5)), max_size=40))
def test_a_gate_that_changes_its_size_never_lets_in_too_many(steps: list[tuple[str, int]]) -> None:
    """Nobody comes in while more are inside than there is room for, and nobody waits while there is room."""

    async def run() -> None:
        gate, waiting = Gate(3), list[asyncio.Task[None]]()
        for step, number in steps:
            before = gate.inside
            if step == "enter":
                waiting.append(asyncio.create_task(gate.acquire(deadline=asyncio.get_running_loop().time() + 60)))
            elif step == "release" and gate.inside:
                gate.release()
            elif step == "resize":
                gate.resize(number)
            await asyncio.sleep(0)
            assert gate.inside <= max(gate.size, before)
            assert not (gate.waiting and gate.inside < gate.size)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("provider", "headers", "expected"),
    [
        ("openai", {"x-ratelimit-limit-requests": "200", "x-ratelimit-remaining-requests": "50"}, {"requests": 0.25}),
        ("openai", {"x-ratelimit-limit-tokens": "1000", "x-ratelimit-remaining-tokens": "1500"}, {"tokens": 1.0}),
        (
            "anthropic",
            {"anthropic-ratelimit-input-tokens-limit": "10", "anthropic-ratelimit-input-tokens-remaining": "0"},
            {"input_tokens": 0.0},
        ),
        ("anthropic", {"x-ratelimit-limit-requests": "200", "x-ratelimit-remaining-requests": "50"}, {}),
        ("openai", {"x-ratelimit-limit-requests": "0", "x-ratelimit-remaining-requests": "0"}, {}),
        ("openai", {"x-ratelimit-limit-requests": "nan", "x-ratelimit-remaining-requests": "-1"}, {}),
        ("openai", {"x-ratelimit-limit-requests": "10"}, {}),
        ("gcp.gemini", {"x-ratelimit-limit-requests": "10", "x-ratelimit-remaining-requests": "5"}, {}),
    ],
)
def test_what_is_left_is_read(provider: str, headers: dict[str, str], expected: dict[str, float]) -> None:
    """Each provider by its own headers; nonsense is no ratio."""
    assert dict(read_quota(provider, headers)) == expected
