"""Profiles that come back as they were, whatever is in them."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from sage_obs.profiling import collapsed, flamegraph, pprof, speedscope
from sage_obs.profiling.profile import Frame, Kind, Profile, Sample, difference, folded
from tests.support.pprof import parsed

WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
NUMBERS = st.integers(-(2**63), 2**63 - 1)
LINES = st.integers(0, 2**31)
FRAMES = st.builds(Frame, WORDS.filter(bool), WORDS, LINES, LINES)
STACKS = st.lists(FRAMES, min_size=1, max_size=6).map(tuple)
LABELS = st.dictionaries(WORDS, WORDS.filter(bool), max_size=3).map(lambda one: tuple(one.items()))
KINDS = st.builds(Kind, WORDS, WORDS)


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Any profile."""
    kinds = tuple(draw(st.lists(KINDS, min_size=1, max_size=3)))
    values = st.tuples(*[NUMBERS] * len(kinds))
    samples = draw(st.lists(st.builds(Sample, STACKS, values, LABELS), max_size=6))
    comments = tuple(draw(st.lists(WORDS.filter(bool), max_size=2)))
    return Profile(kinds, tuple(samples), kinds[-1].type, draw(st.none() | KINDS), 0, draw(NUMBERS), draw(NUMBERS), comments)


@given(profiles())
def test_pprof_round_trip(profile: Profile) -> None:
    """What is written is read, by us and by google.protobuf."""
    data = pprof.encode(profile)
    assert pprof.decode(data) == profile
    message = parsed(data)
    assert [tuple(sample.value) for sample in message.sample] == [sample.values for sample in profile.samples]
    assert message.time_nanos == profile.time


@given(st.binary(max_size=200) | profiles().map(pprof.encode).flatmap(lambda data: st.integers(0, len(data)).map(lambda at: data[:at])))
def test_nothing_but_value_errors(data: bytes) -> None:
    """Rubbish is refused."""
    for read in (pprof.decode, speedscope.decode):
        with contextlib.suppress(ValueError):
            read(data)


@given(profiles())
def test_a_profile_less_itself_is_nothing(profile: Profile) -> None:
    """Differences are exact."""
    assert difference(profile, profile).samples == ()


@given(profiles())
def test_folding_keeps_the_sums_and_every_format_takes_it(profile: Profile) -> None:
    """Rows that are added up have the same total, and any profile can be written in any format."""
    rows = [(sample.stack, sample.values, sample.labels) for sample in profile.samples]
    whole = Profile(profile.kinds, folded([*rows, *rows]), profile.default)
    assert whole.total() == 2 * profile.total()
    small = Profile(
        profile.kinds, tuple(Sample(one.stack, tuple(value >> 40 for value in one.values)) for one in profile.samples), profile.default
    )
    assert flamegraph.render(small, title="t")
    assert speedscope.encode(small)
    collapsed.encode(small)
