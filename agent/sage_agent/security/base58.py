"""base58btc, as did:key writes keys (https://datatracker.ietf.org/doc/html/draft-msporny-base58)."""

from __future__ import annotations

from typing import Final

_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VALUES: Final = {letter: value for value, letter in enumerate(_ALPHABET)}
LONGEST: Final = 128
"""Characters. The time it takes grows with the square of the length, and no key that is used here has more."""


def encode(data: bytes) -> str:
    """The text of some bytes."""
    zeros = len(data) - len(data.lstrip(b"\0"))
    number, digits = int.from_bytes(data), ""
    while number:
        number, value = divmod(number, 58)
        digits = _ALPHABET[value] + digits
    return "1" * zeros + digits


def decode(text: str) -> bytes | None:
    """The bytes of a text; None for one that is too long or no base58."""
    if len(text) > LONGEST:
        return None
    number = 0
    for letter in text:
        value = _VALUES.get(letter)
        if value is None:
            return None
        number = number * 58 + value
    zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8)
