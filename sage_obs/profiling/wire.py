"""The few parts of protocol buffers' wire format that profiles are made of (protobuf.dev, Encoding)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5
_MASK: Final = (1 << 64) - 1
_LONGEST: Final = 10


def varint(number: int) -> bytes:
    """A number of 64 bits, seven at a time; negative ones as two's complement."""
    if 0 <= number < 0x80:  # noqa: PLR2004 - most are
        return bytes((number,))
    number &= _MASK
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def integer(field: int, number: int) -> bytes:
    """A field that is a number; nothing at all for 0, which is what an absent one means."""
    return varint(field << 3 | _VARINT) + varint(number) if number else b""


def text(field: int, value: bytes) -> bytes:
    """A field that is bytes, text or another message; also where it is empty."""
    return varint(field << 3 | _BYTES) + varint(len(value)) + value


def packed(field: int, numbers: Iterable[int]) -> bytes:
    """A repeated number."""
    return text(field, b"".join(map(varint, numbers)))


def signed(number: int) -> int:
    """Two's complement read as it is meant."""
    return number - (1 << 64) if number >> 63 else number


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    for count in range(_LONGEST):
        byte = data[at + count]
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 - no more follow
            return number & _MASK, at + count + 1
    raise ValueError("a number has no end")


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message in order. Raises ValueError for what is no message."""
    at, end = 0, len(data)
    try:
        while at < end:
            key, at = _read_varint(data, at)
            kind = key & 7
            if kind == _VARINT:
                number, at = _read_varint(data, at)
                yield key >> 3, number
                continue
            length, at = _extent(data, at, kind)
            if at + length > end:
                raise ValueError("a field is longer than the message")
            yield key >> 3, data[at : at + length]
            at += length
    except IndexError:
        raise ValueError("the message is cut off") from None


def _extent(data: bytes, at: int, kind: int) -> tuple[int, int]:
    """The length of a field, and where it begins."""
    if kind == _BYTES:
        return _read_varint(data, at)
    if kind in {_FIXED64, _FIXED32}:
        return (8 if kind == _FIXED64 else 4), at
    raise ValueError(f"there is no wire type {kind}")


def numbers(value: int | bytes) -> Iterator[int]:
    """The numbers of a repeated field, packed or one of them."""
    if isinstance(value, int):
        yield value
        return
    at = 0
    while at < len(value):
        number, at = _read_varint(value, at)
        yield number
