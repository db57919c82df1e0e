"""A profile as a table: which functions have the most, themselves and with what they call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sage_obs.profiling.profile import Profile

_SECOND: Final = 1e9
_MEBIBYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Row:
    """A function: its own value and with those it calls, in words, and their shares of the whole from 0 to 1."""

    function: str
    file: str
    own: str
    own_share: float
    all: str
    all_share: float


def top(profile: Profile, *, most: int) -> list[Row]:
    """The functions with the greatest values of their own, of the default kind; of a difference, with the greatest change."""
    at = profile.position()
    own: dict[tuple[str, str], int] = {}
    everything: dict[tuple[str, str], int] = {}
    for sample in profile.samples:
        value = sample.values[at]
        leaf = (sample.stack[0].name, sample.stack[0].file)
        own[leaf] = own.get(leaf, 0) + value
        for function in {(frame.name, frame.file) for frame in sample.stack}:  # a recursive one counts once
            everything[function] = everything.get(function, 0) + value
    whole = sum(abs(sample.values[at]) for sample in profile.samples) or 1
    unit = profile.kinds[at].unit
    greatest = sorted(everything, key=lambda one: (-abs(own.get(one, 0)), -abs(everything[one]), one))[:most]
    return [
        Row(one[0], one[1], shown(own.get(one, 0), unit), own.get(one, 0) / whole, shown(everything[one], unit), everything[one] / whole)
        for one in greatest
    ]


def shown(value: int, unit: str) -> str:
    """A value in a unit that people read."""
    if unit == "nanoseconds":
        return f"{value / _SECOND:.3f} s"
    if unit == "bytes":
        return f"{value / _MEBIBYTE:.2f} MiB"
    return str(value)
