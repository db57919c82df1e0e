"""Profiles as pprof writes them: `profile.proto` of github.com/google/pprof, compressed with gzip.

What its readers insist on: text 0 is empty, ids are not 0, a sample has a value for each kind and at least one location. The
`system_name` of a function stays empty: the demangler would take `<module>` for the arguments of a template.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import Final

from sage_obs.profiling.profile import Frame, Kind, Profile, Sample
from sage_obs.profiling.wire import fields, integer, numbers, packed, signed, text

_LEVEL: Final = 6
_MOST_BYTES: Final = 256 * 1024 * 1024
"""What a profile that is read may come to: a small file can hold a very large one."""
_MAPPING: Final = 1
_FLAGS: Final = (7, 8, 9)
"""That the one mapping has functions, filenames and line numbers, so that nobody looks for symbols."""


def encode(profile: Profile) -> bytes:
    """The profile, compressed; the same bytes for equal profiles."""
    return gzip.compress(_Writer().message(profile), _LEVEL, mtime=0)


class _Writer:
    """Texts, functions and locations, each written once and known by a number."""

    def __init__(self) -> None:
        self._texts: dict[str, int] = {"": 0}
        self._functions: dict[tuple[str, str, int], int] = {}
        self._locations: dict[Frame, int] = {}

    def message(self, profile: Profile) -> bytes:
        kinds = b"".join(text(1, self._kind(kind)) for kind in profile.kinds)
        samples = b"".join(text(2, self._sample(sample)) for sample in profile.samples if sample.stack)
        mapping = integer(1, _MAPPING) + integer(5, self._text("python")) + b"".join(integer(flag, 1) for flag in _FLAGS)
        head = integer(9, profile.time) + integer(10, profile.duration)
        if profile.period_kind is not None:
            head += text(11, self._kind(profile.period_kind)) + integer(12, profile.period)
        if profile.comments:
            head += packed(13, [self._text(comment) for comment in profile.comments])
        head += integer(14, self._text(profile.default))
        places = b"".join(text(4, self._location(frame, number)) for frame, number in self._locations.items())
        functions = b"".join(text(5, self._function(*one, number)) for one, number in self._functions.items())
        table = b"".join(text(6, word.encode("utf-8", "replace")) for word in self._texts)
        return kinds + samples + text(3, mapping) + places + functions + table + head

    def _text(self, word: str) -> int:
        return self._texts.setdefault(word, len(self._texts))

    def _kind(self, kind: Kind) -> bytes:
        return integer(1, self._text(kind.type)) + integer(2, self._text(kind.unit))

    def _sample(self, sample: Sample) -> bytes:
        places = packed(1, [self._locations.setdefault(frame, len(self._locations) + 1) for frame in sample.stack])
        labels = b"".join(text(3, integer(1, self._text(key)) + integer(2, self._text(value))) for key, value in sample.labels)
        return places + packed(2, sample.values) + labels

    def _location(self, frame: Frame, number: int) -> bytes:
        function = self._functions.setdefault((frame.name, frame.file, frame.start), len(self._functions) + 1)
        line = integer(1, function) + integer(2, frame.line)
        return integer(1, number) + integer(2, _MAPPING) + text(4, line)

    def _function(self, name: str, file: str, start: int, number: int) -> bytes:
        return integer(1, number) + integer(2, self._text(name)) + integer(4, self._text(file)) + integer(5, start)


def decode(data: bytes) -> Profile:
    """A profile that anybody has written, but for numeric labels and addresses. Raises ValueError for what is none."""
    try:
        return _Reader(_unpacked(data)).profile()
    except (IndexError, KeyError) as exc:
        raise ValueError("it refers to something that is not in it") from exc


def _unpacked(data: bytes) -> bytes:
    if data[:2] != b"\x1f\x8b":
        return data
    opened = zlib.decompressobj(wbits=31)
    try:
        plain = opened.decompress(data, _MOST_BYTES)
    except zlib.error as exc:
        raise ValueError("it is damaged") from exc
    if opened.unconsumed_tail or not opened.eof:
        raise ValueError("it is cut off or too large")
    return plain


class _Reader:
    """The parts of a message by their numbers."""

    def __init__(self, data: bytes) -> None:
        self._parts: dict[int, list[int | bytes]] = {}
        for field, value in fields(data):
            self._parts.setdefault(field, []).append(value)
        self._texts = [_bytes(value).decode("utf-8", "replace") for value in self._parts.get(6, [])]
        if not self._texts:
            raise ValueError("it has no table of texts")
        self._functions = dict(map(self._function, self._parts.get(5, [])))
        self._locations = dict(map(self._location, self._parts.get(4, [])))

    def profile(self) -> Profile:
        kinds = tuple(self._kind(value) for value in self._parts.get(1, []))
        period = self._parts.get(11)
        return Profile(
            kinds=kinds,
            samples=tuple(self._sample(value, len(kinds)) for value in self._parts.get(2, [])),
            default=self._texts[self._number(14)],
            period_kind=self._kind(period[-1]) if period else None,
            period=self._number(12),
            time=self._number(9),
            duration=self._number(10),
            comments=tuple(self._texts[number] for value in self._parts.get(13, []) for number in numbers(value)),
        )

    def _number(self, field: int) -> int:
        found = self._parts.get(field)
        return signed(_int(found[-1])) if found else 0

    def _kind(self, value: int | bytes) -> Kind:
        part = dict(fields(_bytes(value)))
        return Kind(self._texts[_int(part.get(1, 0))], self._texts[_int(part.get(2, 0))])

    def _function(self, value: int | bytes) -> tuple[int, tuple[str, str, int]]:
        part = dict(fields(_bytes(value)))
        name = self._texts[_int(part.get(2, 0))] or self._texts[_int(part.get(3, 0))]
        return _int(part.get(1, 0)), (name, self._texts[_int(part.get(4, 0))], signed(_int(part.get(5, 0))))

    def _location(self, value: int | bytes) -> tuple[int, tuple[Frame, ...]]:
        """A place may be several lines: calls that were inlined, the innermost first."""
        number, address, frames = 0, 0, []
        for field, part in fields(_bytes(value)):
            if field == 1:
                number = _int(part)
            elif field == 3:  # noqa: PLR2004 - the address
                address = _int(part)
            elif field == 4:  # noqa: PLR2004 - a line
                line = dict(fields(_bytes(part)))
                name, file, start = self._functions[_int(line.get(1, 0))]
                frames.append(Frame(name, file, start, signed(_int(line.get(2, 0)))))
        return number, tuple(frames) or (Frame(f"0x{address:x}"),)

    def _sample(self, value: int | bytes, kinds: int) -> Sample:
        stack: list[Frame] = []
        values: list[int] = []
        labels: list[tuple[str, str]] = []
        for field, part in fields(_bytes(value)):
            if field == 1:
                stack += [frame for number in numbers(part) for frame in self._locations[number]]
            elif field == 2:  # noqa: PLR2004 - values
                values += map(signed, numbers(part))
            elif field == 3:  # noqa: PLR2004 - a label
                labels += self._label(_bytes(part))
        if len(values) != kinds:
            raise ValueError(f"a sample has {len(values)} values where there are {kinds} kinds")
        return Sample(tuple(stack), tuple(values), tuple(labels))

    def _label(self, data: bytes) -> Iterator[tuple[str, str]]:
        part = dict(fields(data))
        if word := self._texts[_int(part.get(2, 0))]:
            yield self._texts[_int(part.get(1, 0))], word


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where a message should")
    return value


def _int(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError("a message stands where a number should")
    return value
