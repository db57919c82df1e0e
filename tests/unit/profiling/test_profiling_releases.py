"""Profiles of two releases."""

from __future__ import annotations

import pytest

from sage_obs.profiling.profile import Frame, Kind, Profile, Sample, difference
from sage_obs.profiling.releases import moved, scaled
from sage_obs.profiling.report import top

KINDS = (Kind("samples", "count"), Kind("cpu", "nanoseconds"))


def _profile(folder: str, shift: int, **spent: int) -> Profile:
    """What functions of one file have spent, in 10 ms."""
    main = Frame("main", f"{folder}/app/shop.py", 1, 9 + shift)
    samples = [
        Sample((Frame(name, f"{folder}/app/shop.py", 20 + shift, 25 + shift), main), (value, value * 10_000_000))
        for name, value in spent.items()
    ]
    return Profile(KINDS, tuple(samples), "cpu")


def test_code_that_has_moved_is_compared_with_itself() -> None:
    """Another folder and other lines are no change; what takes longer is."""
    before, after = _profile("/srv/1.0.0", 0, price=7, ship=3), _profile("/srv/1.1.0", 12, price=9, ship=3)
    rows = {row.function: (row.own, row.all) for row in top(difference(after, moved(before, after)), most=10)}
    assert rows["price"] == ("0.020 s", "0.020 s")
    assert rows["ship"] == ("0.000 s", "0.000 s")
    assert rows["main"][1] == "0.020 s"


@pytest.mark.parametrize(
    ("file", "others", "is_taken_for"),
    [
        ("/a/x/m.py", ["/b/x/m.py", "/b/y/m.py"], "/b/x/m.py"),
        ("/a/x/m.py", ["/b/z/m.py", "/b/y/m.py"], "/a/x/m.py"),
        ("/a/x/m.py", ["/b/x/n.py"], "/a/x/m.py"),
        ("/a/x/m.py", ["/a/x/m.py", "/b/x/m.py"], "/a/x/m.py"),
        ("m.py", [], "m.py"),
    ],
    ids=["most of the path", "two as like", "another name", "it is there", "none"],
)
def test_files_are_known_by_the_end_of_their_path(file: str, others: list[str], is_taken_for: str) -> None:
    """Where that is not clear they stay what they are."""

    def of(*files: str) -> Profile:
        return Profile(KINDS, tuple(Sample((Frame("f", one, 1, 1),), (1, 1)) for one in files), "cpu")

    assert moved(of(file), of(*others)).samples[0].stack[0].file == is_taken_for


def test_profiles_of_other_lengths_are_compared_by_their_shares() -> None:
    """A profile of a third of the time with the same shares is no change; one without anything is left alone."""
    before, after = _profile("/srv", 0, price=7, ship=3), _profile("/srv", 0, price=21, ship=9)
    assert difference(after, scaled(before, after)).samples == ()
    nothing = Profile(KINDS, (), "cpu")
    assert scaled(nothing, after) == nothing
    assert scaled(before, nothing) == before
