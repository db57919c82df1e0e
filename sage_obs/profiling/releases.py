"""Profiles of two releases side by side: the same code lies in another folder, and was not looked at for as long."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import takewhile

from sage_obs.profiling.profile import Frame, Profile, Sample


def moved(profile: Profile, to: Profile) -> Profile:
    """The profile with its files where the other one has them.

    A file that is not in the other is taken for that which has the same name and most of the same folders at the end of its path;
    where two are as like, or none is, it stays where it is.
    """
    theirs = _files(to)
    places = {file: _likest(file, theirs) for file in _files(profile) - theirs}
    return replace(profile, samples=tuple(_sample(one, places) for one in profile.samples))


def _sample(sample: Sample, places: dict[str, str]) -> Sample:
    return replace(sample, stack=tuple(_frame(frame, places) for frame in sample.stack))


def _frame(frame: Frame, places: dict[str, str]) -> Frame:
    return frame._replace(file=places.get(frame.file, frame.file))


def _files(profile: Profile) -> set[str]:
    return {frame.file for sample in profile.samples for frame in sample.stack} - {""}


def _likest(file: str, others: Iterable[str]) -> str:
    best, second = 0, 0
    found = file
    for other in others:
        alike = _alike(file, other)
        if alike > best:
            best, second, found = alike, best, other
        else:
            second = max(second, alike)
    return found if best > second else file


def _alike(one: str, other: str) -> int:
    """How many parts at the end of two paths are the same."""
    pairs = zip(reversed(one.split("/")), reversed(other.split("/")), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def scaled(profile: Profile, to: Profile) -> Profile:
    """The profile as if there had been as much to share out as in the other, kind by kind; where either has nothing it stays as it is."""
    kinds = [kind.type for kind in profile.kinds]
    factors = [to.total(kind) / profile.total(kind) if to.total(kind) > 0 < profile.total(kind) else 1.0 for kind in kinds]
    samples = (
        replace(one, values=tuple(round(value * factor) for value, factor in zip(one.values, factors, strict=True)))
        for one in profile.samples
    )
    return replace(profile, samples=tuple(samples))
