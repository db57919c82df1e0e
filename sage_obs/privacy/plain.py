"""Anybody's values as bounded, redacted text or JSON: what may leave the process of content.

The work is bounded as well as the result. Nothing of the value's own is run that could be left out: an object that is no data is
named by its type, as its `__repr__` may say anything.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeVar

import orjson

from sage_obs.privacy.redaction import redact, redact_text

_ITEMS: Final = 1000
"""Items that are looked at in one value, over all depths."""
_DEPTH: Final = 12
_MARGIN: Final = 4096
"""Characters beyond a cut that are looked at for secrets: one that is cut in two is not recognised."""
_WHOLE: Final = (bool, float, type(None))
_MOST_EXACT: Final = 2**53
_REST: Final = "… [more left out]"
T = TypeVar("T")


def clipped(text: str, most: int) -> str:
    """The text without secrets, in `most` bytes of UTF-8; where something was cut off it says how many characters."""
    seen = text[: most + _MARGIN]
    redacted = redact_text(seen.encode("utf-8", "replace").decode())
    if len(seen) < len(text):
        redacted = redacted[: max(0, len(redacted) - _MARGIN)]  # a secret may stand across the end of what was looked at
    encoded = redacted.encode()
    if len(seen) == len(text) and len(encoded) <= most:
        return redacted
    kept = encoded[: max(0, most)].decode("utf-8", "ignore")
    return f"{kept}{mark(max(1, len(text) - len(kept)))}"


def mark(left_out: int, what: str = "characters") -> str:
    """What stands where something was cut off."""
    return f"… [{left_out} {what} left out]"


def plain(value: object, most: int) -> object:
    """The value as JSON has it, without secrets; what takes more than `most` bytes is text that says so. Text that is JSON is read."""
    if isinstance(value, str):
        return _read(clipped(value, most))
    encoded = orjson.dumps(_Plain(most).of(value, _DEPTH), option=orjson.OPT_NON_STR_KEYS)
    if len(encoded) <= most:
        return orjson.loads(redact(encoded))
    return clipped(encoded.decode(), most)


def _read(text: str) -> object:
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


class _Plain:
    """One value's walk: how many items and characters may still be looked at."""

    def __init__(self, most: int) -> None:
        self._items = _ITEMS
        self._characters = most + _MARGIN

    def of(self, value: object, depth: int) -> object:
        self._items -= 1
        if isinstance(value, enum.Enum):
            value = value.value
        if isinstance(value, _WHOLE):
            return value
        if isinstance(value, int):
            return int(value) if abs(value) < _MOST_EXACT else self._text(str(value))
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return f"<{len(value)} bytes>"
        return self._inside(value, depth)

    def _text(self, text: str) -> str:
        kept = text[: max(0, self._characters)]
        self._characters -= len(kept)
        return (kept if len(kept) == len(text) else f"{kept}{mark(len(text) - len(kept))}").encode("utf-8", "replace").decode()

    def _inside(self, value: object, depth: int) -> object:
        if depth == 0 or self._items <= 0:
            return _REST
        if isinstance(value, Mapping):
            return {self._key(key): self.of(item, depth - 1) for key, item in self._some(value.items(), (_REST, ""))}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.of(item, depth - 1) for item in self._some(value, _REST)]
        return f"<{type(value).__name__}>" if (fields := _fields(value)) is None else self._inside(fields, depth)

    def _some(self, items: Iterable[T], rest: T) -> Iterator[T]:
        for item in items:
            if self._items <= 0:
                yield rest
                return
            yield item

    def _key(self, key: object) -> str:
        return self._text(key) if isinstance(key, str) else str(key) if isinstance(key, int) else f"<{type(key).__name__}>"


def _fields(value: object) -> Mapping[str, object] | None:
    """The fields of a dataclass or of a pydantic model, None for any other object."""
    kind = type(value)
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    known = getattr(kind, "model_fields", None)
    if isinstance(known, Mapping):
        there = vars(value)
        return {name: there[name] for name in known if there.get(name) is not None}
    return None
