"""What a profile is, whichever way it was made and whichever way it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

Labels = tuple[tuple[str, str], ...]
Values = tuple[int, ...]


class Frame(NamedTuple):
    """A line of a function: `file` is absolute where there is one, `start` the function's first line; lines are 0 where unknown."""

    name: str
    file: str = ""
    start: int = 0
    line: int = 0


Stack = tuple[Frame, ...]
"""The innermost call first."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What one value of every sample means, and in which unit: `cpu` in `nanoseconds`."""

    type: str
    unit: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One stack with a value for each kind of its profile."""

    stack: Stack
    values: Values
    labels: Labels = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """Samples of some kinds. Times are nanoseconds, `time` since 1970; `period` is in the unit of `period_kind`; `default` names a kind."""

    kinds: tuple[Kind, ...]
    samples: tuple[Sample, ...] = ()
    default: str = ""
    period_kind: Kind | None = None
    period: int = 0
    time: int = 0
    duration: int = 0
    comments: tuple[str, ...] = ()

    def position(self, kind: str = "") -> int:
        """Where a kind's values stand in a sample, by its type; the default's without one. Raises KeyError for one there is not."""
        wanted = kind or self.default
        types = [one.type for one in self.kinds]
        if not wanted:
            return len(types) - 1
        if wanted not in types:
            raise KeyError(wanted)
        return types.index(wanted)

    def total(self, kind: str = "") -> int:
        """The sum of a kind's values."""
        at = self.position(kind)
        return sum(sample.values[at] for sample in self.samples)


def folded(rows: Iterable[tuple[Stack, Values, Labels]]) -> tuple[Sample, ...]:
    """One sample for each stack and labels, the greatest last value first; rows of zeros and rows without a stack are left out."""
    sums: dict[tuple[Stack, Labels], Values] = {}
    for stack, values, labels in rows:
        key = (stack, labels)
        known = sums.get(key)
        sums[key] = values if known is None else tuple(a + b for a, b in zip(known, values, strict=True))
    kept = [Sample(stack, values, labels) for (stack, labels), values in sums.items() if stack and any(values)]
    return tuple(sorted(kept, key=lambda sample: (-sample.values[-1], sample.stack, sample.labels)))


def difference(after: Profile, before: Profile) -> Profile:
    """What changed from one profile to the other of the same kinds. Raises ValueError where the kinds differ."""
    if after.kinds != before.kinds:
        raise ValueError(f"{_words(before)} and {_words(after)} cannot be compared")
    gone = ((sample.stack, tuple(-value for value in sample.values), sample.labels) for sample in before.samples)
    return replace(after, samples=folded([*_rows(after), *gone]))


def _words(profile: Profile) -> str:
    return ", ".join(f"{kind.type}/{kind.unit}" for kind in profile.kinds)


def _rows(profile: Profile) -> list[tuple[Stack, Values, Labels]]:
    return [(sample.stack, sample.values, sample.labels) for sample in profile.samples]


def filtered(profile: Profile, keep: Callable[[Sample], bool]) -> Profile:
    """The profile of the samples that are kept."""
    return replace(profile, samples=tuple(filter(keep, profile.samples)))
