"""Profiles as folded stacks, one a line, the outermost call first: what flame graph tools and py-spy speak."""

from __future__ import annotations

import re
from typing import Final

from sage_obs.profiling.profile import Frame, Kind, Profile, Stack, folded

_LINE: Final = re.compile(r"(.*) (-?\d{1,18})", re.ASCII)
_PLACED: Final = re.compile(r"(.{1,500}) \((.{1,1000}):(\d{1,9})\)", re.ASCII)
_SAMPLES: Final = Kind("samples", "count")


def encode(profile: Profile, kind: str = "") -> str:
    """One kind's values, the default's without one. Labels are left out, and stacks of 0."""
    at = profile.position(kind)
    rows = folded((sample.stack, (sample.values[at],), ()) for sample in profile.samples)
    return "".join(f"{';'.join(map(_word, reversed(row.stack)))} {row.values[0]}\n" for row in rows)


def _word(frame: Frame) -> str:
    """As py-spy writes it, without what would end the word."""
    place = f" ({frame.file}:{frame.line})" if frame.file else ""
    return f"{frame.name}{place}".replace(";", ":").replace("\n", " ").replace("\r", " ")


def decode(text: str, kinds: tuple[Kind, ...] = (_SAMPLES,), *, per_sample: tuple[int, ...] = (1,)) -> Profile:
    """The profile of such lines, each count times `per_sample` for the kinds. Raises ValueError for a line that is none."""
    rows = [_row(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    samples = folded((stack, tuple(count * each for each in per_sample), ()) for stack, count in rows)
    return Profile(kinds, samples, kinds[-1].type, kinds[-1], per_sample[-1])


def _row(number: int, line: str) -> tuple[Stack, int]:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(f"line {number} does not end in a count")
    return tuple(_frame(word) for word in reversed(found[1].split(";"))), int(found[2])


def _frame(word: str) -> Frame:
    placed = _PLACED.fullmatch(word)
    return Frame(placed[1], placed[2], 0, int(placed[3])) if placed is not None else Frame(word)
