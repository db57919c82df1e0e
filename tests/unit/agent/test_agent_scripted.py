"""The embedded provider."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_agent.llm.config import ScriptedConfig
from sage_agent.llm.providers.base import Completion, Delta, Prompt, ProviderError
from sage_agent.llm.providers.scripted import ScriptedProvider, Spread

_PLAIN = ScriptedConfig(latency=0.0, error_rate=0.0, overhead=0.0, seed=0, unready=False)


def _complete(provider: ScriptedProvider, text: str = "hello there") -> Completion:
    return asyncio.run(provider.complete(Prompt(text, max_tokens=50)))


async def _collect(provider: ScriptedProvider) -> list[Delta]:
    return [delta async for delta in provider.stream(Prompt("hello there", max_tokens=50))]


@given(share=st.floats(0, 1), calls=st.integers(1, 400))
def test_failures_are_spread_evenly(share: float, calls: int) -> None:
    """After any number of calls, the failures are the share of them, within one."""
    fails = Spread(share)
    count = 0
    for number in range(1, calls + 1):
        count += fails()
        assert abs(count - number * share) < 1 + 1e-6


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1 / 3, 100), (0.1, 30), (0.29, 87), (1.0, 300)])
def test_the_share_is_exact(share: float, expected: int) -> None:
    """A third of 300 calls is 100 calls, whatever floating point says."""
    fails = Spread(share)
    assert sum(fails() for _ in range(300)) == expected


def test_the_same_seed_gives_the_same_answers() -> None:
    """Two providers with one seed agree on every prompt, and prompts differ."""
    first, second = (ScriptedProvider(_PLAIN, model="m") for _ in range(2))
    prompts = [f"question {number}" for number in range(30)]
    answers = [_complete(first, prompt) for prompt in prompts]
    assert answers == [_complete(second, prompt) for prompt in prompts]
    assert len({answer.text for answer in answers}) > 5
    assert answers != [_complete(ScriptedProvider(replace(_PLAIN, seed=1), model="m"), prompt) for prompt in prompts]


def test_latency_is_slept_once() -> None:
    """A call takes the scripted latency, also when it fails."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    with pytest.raises(ProviderError, match="on purpose"):
        _complete(ScriptedProvider(replace(_PLAIN, latency=0.25, error_rate=1.0), model="m", sleep=sleep))
    assert slept == [0.25]


def test_a_stream_says_what_a_whole_answer_says() -> None:
    """The pieces of a stream add up to the answer and end with the same usage."""
    provider = ScriptedProvider(_PLAIN, model="m")
    whole, pieces = _complete(provider), asyncio.run(_collect(provider))
    assert "".join(piece.text for piece in pieces) == whole.text
    assert pieces[-1].usage == whole.usage


def test_a_failing_stream_breaks_off_after_it_began() -> None:
    """A failing stream yields some of its words first."""
    seen: list[Delta] = []

    async def watch() -> None:
        async for delta in ScriptedProvider(replace(_PLAIN, error_rate=1.0), model="m").stream(Prompt("hi", max_tokens=50)):
            seen.append(delta)  # noqa: PERF401 - the pieces seen before the failure are the point

    with pytest.raises(ProviderError):
        asyncio.run(watch())
    assert seen


def test_answers_respect_max_tokens() -> None:
    """An answer is never longer than asked for."""
    completion = asyncio.run(ScriptedProvider(_PLAIN, model="m").complete(Prompt("hi", max_tokens=2)))
    assert completion.usage is not None
    assert (len(completion.text.split()), completion.usage.output) == (2, 2)
