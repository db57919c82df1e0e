"""Whatever a provider sends as usage, it is read, and no part is more than its whole."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st

from sage_obs.genai.usage import Usage, of_anthropic, of_google, of_openai, tokens

_NUMBERS: Final = st.integers(0, 10**9)
_HOSTILE: Final = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400) | st.lists(st.integers(), max_size=2)
)
_NAMES: Final = (
    "prompt_tokens",
    "completion_tokens",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "thinking_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "prompt_token_count",
    "candidates_token_count",
    "thoughts_token_count",
    "cached_content_token_count",
    "tool_use_prompt_token_count",
)
_DETAILS: Final = ("prompt_tokens_details", "completion_tokens_details", "input_tokens_details", "output_tokens_details")


class _Raising:
    """An object whose attributes raise when they are read."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def _holders(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mappings and objects with these values under some of the names that providers use."""
    flat = st.dictionaries(st.sampled_from(_NAMES), values)
    inner = flat | flat.map(lambda found: SimpleNamespace(**found)) | values
    mappings = st.builds(lambda outer, details: {**outer, **details}, flat, st.dictionaries(st.sampled_from(_DETAILS), inner))
    return mappings | mappings.map(lambda found: SimpleNamespace(**found))


_READERS: Final = st.sampled_from([of_openai, of_anthropic, of_google])


def _sound(usage: Usage) -> bool:
    parts = (usage.input, usage.output, usage.cached_read, usage.cached_write, usage.reasoning)
    return (
        all(type(part) is int and part >= 0 and float(part) == part for part in parts)
        and usage.cached_read + usage.cached_write <= usage.input
        and usage.reasoning <= usage.output
    )


@given(read=_READERS, sent=_holders(_HOSTILE) | _HOSTILE | st.builds(_Raising))
def test_anything_is_read_and_parts_never_exceed_their_whole(read: Callable[[object], Usage], sent: object) -> None:
    """None, text, negative numbers, NaN, objects that raise: the result is whole numbers of tokens in order."""
    assert _sound(read(sent))


@given(read=_READERS, first=_holders(_NUMBERS | _HOSTILE), later=_holders(_NUMBERS | _HOSTILE))
def test_a_stream_never_takes_back_what_it_said(read: Callable[[object], Usage], first: object, later: object) -> None:
    """What it says later adds to it, in every number, and saying the same again changes nothing."""
    before, after = read(first), read(later)
    grown = before.grown(after)
    assert _sound(grown)
    assert grown.input >= max(before.input, after.input)
    assert grown.output >= max(before.output, after.output)
    assert grown.grown(after) == grown.grown(before) == grown


@given(inputs=_NUMBERS, outputs=_NUMBERS, read=_NUMBERS, written=_NUMBERS, reasoning=_NUMBERS)
def test_providers_that_mean_the_same_are_read_the_same(inputs: int, outputs: int, read: int, written: int, reasoning: int) -> None:
    """OpenAI's input includes the cache, Anthropic's leaves it out, and Gemini's output leaves out the thoughts."""
    whole = inputs + read + written
    wanted = Usage(whole, outputs + reasoning, read, written, reasoning)
    details = {"cached_tokens": read, "cache_write_tokens": written}
    chat = {
        "prompt_tokens": whole,
        "completion_tokens": outputs + reasoning,
        "prompt_tokens_details": details,
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
    responses = {
        "input_tokens": whole,
        "output_tokens": outputs + reasoning,
        "input_tokens_details": details,
        "output_tokens_details": {"reasoning_tokens": reasoning},
    }
    message = {
        "input_tokens": inputs,
        "output_tokens": outputs + reasoning,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "output_tokens_details": {"thinking_tokens": reasoning},
    }
    assert of_openai(chat) == of_openai(responses) == of_anthropic(message) == wanted
    gemini = {
        "prompt_token_count": whole,
        "candidates_token_count": outputs,
        "thoughts_token_count": reasoning,
        "cached_content_token_count": read,
    }
    assert of_google(gemini) == Usage(whole, outputs + reasoning, read, 0, reasoning)


@given(value=_HOSTILE)
def test_a_number_of_tokens_is_what_it_is_and_anything_else_is_none(value: object) -> None:
    """Whole numbers that a float can count stay; a truth value is no number."""
    expected = value if type(value) is int and 0 <= value <= 2**53 else None
    assert tokens(value) == (expected if expected is not None else tokens(value))
    assert 0 <= tokens(value) <= 2**53
    assert not isinstance(value, bool) or tokens(value) == 0
