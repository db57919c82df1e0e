"""Profiles as pprof writes them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from sage_obs.profiling import collapsed, formats, pprof, speedscope
from sage_obs.profiling.profile import Frame, Kind, Profile, Sample, difference
from tests.support.pprof import go_pprof, parsed

INNER, OUTER = Frame("inner", "/src/a.py", 10, 12), Frame("<module>", "/src/a.py", 1, 20)
PROFILE = Profile(
    kinds=(Kind("samples", "count"), Kind("cpu", "nanoseconds")),
    samples=(
        Sample((INNER, OUTER), (3, 30_000_000), (("thread", "MainThread"),)),
        Sample((INNER, INNER, OUTER), (1, 10_000_000), (("thread", "other"),)),
    ),
    default="cpu",
    period_kind=Kind("cpu", "nanoseconds"),
    period=10_000_000,
    time=1_700_000_000_000_000_000,
    duration=1_000_000_000,
    comments=("a comment",),
)


def test_the_message_is_what_readers_insist_on() -> None:
    """Text 0 is empty, ids are not 0, places are written once, and every reference is to something that is there."""
    message = parsed(pprof.encode(PROFILE))
    texts = message.string_table
    assert texts[0] == ""
    assert len(texts) == len(set(texts))
    assert [(texts[one.type], texts[one.unit]) for one in message.sample_type] == [("samples", "count"), ("cpu", "nanoseconds")]
    assert texts[message.default_sample_type] == "cpu"
    assert [texts[one] for one in message.comment] == ["a comment"]
    assert (message.time_nanos, message.duration_nanos, message.period) == (PROFILE.time, PROFILE.duration, PROFILE.period)
    places = {one.id: one for one in message.location}
    functions = {one.id: one for one in message.function}
    assert 0 not in {*places, *functions}
    assert (len(places), len(functions)) == (2, 2)
    assert {one.mapping_id for one in places.values()} == {message.mapping[0].id} == {1}
    assert message.mapping[0].has_functions
    assert message.mapping[0].has_filenames
    assert message.mapping[0].has_line_numbers
    names = [[texts[functions[places[at].line[0].function_id].name] for at in sample.location_id] for sample in message.sample]
    assert names == [["inner", "<module>"], ["inner", "inner", "<module>"]]
    assert {one.system_name for one in functions.values()} == {0}
    assert [list(sample.value) for sample in message.sample] == [[3, 30_000_000], [1, 10_000_000]]
    assert [texts[sample.label[0].str] for sample in message.sample] == ["MainThread", "other"]
    assert places[message.sample[0].location_id[0]].line[0].line == 12


def test_equal_profiles_are_equal_bytes() -> None:
    """Nothing of the moment gets in."""
    assert pprof.encode(PROFILE) == pprof.encode(PROFILE)


def test_a_sample_without_a_stack_is_not_written_and_the_kinds_always_are() -> None:
    """Parca refuses a profile with the one, every reader one without the other."""
    empty = Profile(PROFILE.kinds, (Sample((), (1, 1)),))
    message = parsed(pprof.encode(empty))
    assert (len(message.sample), len(message.sample_type)) == (0, 2)


def test_go_reads_it(tmp_path: Path) -> None:
    """`go tool pprof` shows the shares, the labels, the stacks and the raw message; a profile less itself is nothing."""
    file = tmp_path / "cpu.prof"
    file.write_bytes(pprof.encode(PROFILE))
    assert "75.00%" in go_pprof("-tags", str(file), home=tmp_path)
    top = go_pprof("-top", str(file), home=tmp_path)
    assert "40ms   100%" in top
    assert "<module>" in top
    assert "a comment" in go_pprof("-comments", str(file), home=tmp_path)
    assert "PeriodType: cpu nanoseconds" in go_pprof("-raw", str(file), home=tmp_path)
    assert go_pprof("-traces", str(file), home=tmp_path).count("<module>") == 2
    same = go_pprof("-top", "-diff_base", str(file), str(file), home=tmp_path)
    assert "Showing nodes accounting for 0" in same
    assert "inner" not in same.partition("flat%")[2] or " 0 " in same


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x1f\x8b",
        gzip.compress(b"\x0a"),
        gzip.compress(b"\x12\x02\x08\x01\x32\x00"),
        pprof.encode(PROFILE)[:-9],
        b"\xff" * 40,
    ],
    ids=["empty", "field 0", "no gzip", "cut off", "a place that is not there", "cut gzip", "no end"],
)
def test_what_is_no_profile_is_a_value_error(data: bytes) -> None:
    """Nothing else is raised, whatever is read."""
    with pytest.raises(ValueError, match=r"\w"):
        pprof.decode(data)


def test_a_small_file_that_holds_a_huge_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by what is allowed and not by what is sent."""
    monkeypatch.setattr(pprof, "_MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="too large"):
        pprof.decode(gzip.compress(b"\0" * 100_000))


def test_differences_are_of_equal_kinds() -> None:
    """What did not change is left out; other kinds cannot be compared."""
    assert difference(PROFILE, PROFILE).samples == ()
    more = Profile(PROFILE.kinds, (Sample((INNER, OUTER), (1, 5), (("thread", "MainThread"),)),))
    assert difference(more, PROFILE).total("cpu") == 5 - 40_000_000
    with pytest.raises(ValueError, match="cannot be compared"):
        difference(PROFILE, Profile((Kind("a", "b"),)))


def test_collapsed_stacks_come_back() -> None:
    """Folded stacks keep names, places and one kind's values; what would end a word does not."""
    text = collapsed.encode(PROFILE)
    assert text.splitlines()[0] == "<module> (/src/a.py:20);inner (/src/a.py:12) 30000000"
    back = collapsed.decode(text)
    assert back.total() == 40_000_000
    assert [frame.line for frame in back.samples[0].stack] == [12, 20]
    strange = Profile((Kind("a", "b"),), (Sample((Frame("x;y\nz 4"),), (7,)),))
    assert collapsed.encode(strange) == "x:y z 4 7\n"
    with pytest.raises(ValueError, match="line 2"):
        collapsed.decode("a;b 1\nnothing\n")


def test_speedscope_files_come_back() -> None:
    """Every kind is a profile of its own, and comes back as one."""
    back = speedscope.decode(speedscope.encode(PROFILE))
    assert back.kinds == PROFILE.kinds
    assert back.default == "cpu"
    assert [sample.values for sample in back.samples] == [(3, 30_000_000), (1, 10_000_000)]
    for data in (b"{}", b"[]", b"{", b'{"profiles": [], "shared": {"frames": []}}'):
        with pytest.raises(ValueError, match=r"\w"):
            speedscope.decode(data)


@pytest.mark.parametrize("form", ["pprof", "collapsed", "speedscope"])
def test_formats_are_told_apart_by_what_is_in_them(form: str) -> None:
    """A file's name says nothing."""
    assert formats.read(formats.written(PROFILE, form, title="t")).total("cpu" if form != "collapsed" else "samples") == 40_000_000


def test_a_page_runs_nothing_of_what_a_profile_says() -> None:
    """Names that would end the script stay names, and the page asks nobody for anything."""
    evil = "</script><script>alert(1)</script>"
    hostile = Profile((Kind("a", "b"),), (Sample((Frame(evil, evil),), (7,)),), comments=(evil,))
    page = formats.written(hostile, "flamegraph", title=evil).decode()
    assert "alert(1)" in page
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert "default-src 'none'" in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_files_name_says_what_is_written() -> None:
    """Names that are usual for a format are known, whatever their case; another is an error that lists them."""
    names = ("cpu.pb.gz", "cpu.prof", "a.PPROF", "b.speedscope.json", "b.json", "c.txt", "c.folded", "d.html")
    assert [formats.form_of(name) for name in names] == [*["pprof"] * 3, *["speedscope"] * 2, *["collapsed"] * 2, "flamegraph"]
    for name in ("cpu", "cpu.svg", "pb.gz.zip"):
        with pytest.raises(ValueError, match=r"ends in none of \.pb\.gz"):
            formats.form_of(name)
