"""Values of the caller's as JSON can hold them, whatever their `__repr__` does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

_DEEPEST: Final = 6
_LONGEST: Final = 16_384
_WIDEST: Final = 1000
_INT_BITS: Final = 63
UNPRINTABLE: Final = "<unprintable>"
TOO_LONG: Final = "<too long>"


def safe_text(value: object) -> str:
    """`str(value)`, shortened and encodable; a stand-in where it raises."""
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - it is the caller's code, and a log line never raises
        return UNPRINTABLE
    return text[:_LONGEST].encode("utf-8", "replace").decode("utf-8")


def safe_value(value: object, *, depth: int = 0) -> object:
    """A JSON value like this one: containers bounded in depth and width, numbers finite and in range, the rest as text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if int(value).bit_length() <= _INT_BITS else safe_text(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if depth < _DEEPEST:
        if isinstance(value, Mapping):
            return {safe_text(key): safe_value(value[key], depth=depth + 1) for key in list(value)[:_WIDEST]}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [safe_value(item, depth=depth + 1) for item in list(value)[:_WIDEST]]
    return safe_text(value)
