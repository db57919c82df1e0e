"""Spans as the bytes of OTLP's protobuf (opentelemetry-proto, trace/v1/trace.proto).

Written out field by field, as building a message object for each costs ten times what the bytes cost. Nothing that looks like a
credential leaves in a name, an attribute or an event, whoever made the span.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from sage_obs.privacy.redaction import MASK, redact, redact_text, secret_name

Attributes = Mapping[str, object]
"""Text, numbers, bools, bytes, None, lists and mappings of them; anything else goes out as the name of its type."""
_NOTHING: Final[Attributes] = {}

FIRST_KIND: Final = 1
"""OTLP has an unspecified kind before the first of OpenTelemetry's API."""
LOCAL: Final = 0x100
"""In a span's flags, beside those of W3C: its parent is known to be in this process."""
REMOTE: Final = 0x300
"""The same of a parent in another process."""

_REMEMBERED: Final = 4096
"""How many attributes are kept as bytes; most spans of a service differ in two or three of theirs."""
_SHORT: Final = 256
"""A longer text in characters is unlikely to come again."""
_SCALARS: Final = frozenset({str, bool, int, float})
_NO_SECRET: Final = (bool, int, float, type(None))
_INT64: Final = range(-(1 << 63), 1 << 63)
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SEVEN_BITS: Final = 0x7F
_double: Final = struct.Struct("<d").pack
_fixed64: Final = struct.Struct("<Q").pack
_fixed32: Final = struct.Struct("<I").pack


class Event(NamedTuple):
    """Something that happened in a span, at a Unix time in nanoseconds."""

    at: int
    name: str
    attributes: Attributes = _NOTHING
    dropped: int = 0


class Link(NamedTuple):
    """Another span that this one has to do with; ids are 16 and 8 bytes."""

    trace_id: bytes
    span_id: bytes
    state: str = ""
    attributes: Attributes = _NOTHING
    dropped: int = 0
    flags: int = 0


class Facts(NamedTuple):
    """A finished span. Ids are 16 and 8 bytes, b"" for no parent; times are in Unix nanoseconds; `kind` and `status` are OTLP's numbers."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    name: str
    kind: int
    start: int
    end: int
    attributes: Attributes = _NOTHING
    flags: int = 0
    state: str = ""
    events: Sequence[Event] = ()
    links: Sequence[Link] = ()
    status: int = 0
    description: str = ""
    dropped: tuple[int, int, int] = (0, 0, 0)
    """Attributes, events and links that the span had no room for."""


def request(groups: Iterable[tuple[bytes, bytes, Sequence[Facts]]]) -> bytes:
    """An ExportTraceServiceRequest: for each group its resource, its scope (see `resource` and `scope`) and its spans."""
    return b"".join(
        _field(1, about + _field(2, scope_ + b"".join([_field(2, span(one)) for one in spans]))) for about, scope_, spans in groups
    )


def resource(attributes: Attributes, schema_url: str = "") -> bytes:
    """What a group says of its resource, made once."""
    return _field(1, _attributes(1, attributes)) + _text(3, schema_url)


def scope(name: str, version: str = "", attributes: Attributes = _NOTHING, schema_url: str = "") -> bytes:
    """What a group says of its instrumentation scope, made once."""
    return _field(1, _text(1, name) + _text(2, version) + _attributes(3, attributes)) + _text(3, schema_url)


def span(facts: Facts) -> bytes:
    """One span's message."""
    ids = b"\x0a\x10%b\x12\x08%b" % (facts.trace_id, facts.span_id)
    parent = b"\x22\x08%b" % facts.parent_id if facts.parent_id else b""
    times = b"\x39%b\x41%b" % (_fixed64(facts.start), _fixed64(facts.end))
    parts = [ids, _text(3, facts.state), parent, _name_of(facts.name), _number(6, facts.kind), times, _attributes(9, facts.attributes)]
    if facts.events or facts.links or facts.dropped != (0, 0, 0):
        parts.append(_rare(facts))
    if facts.status or facts.description:
        parts.append(_field(15, _text(2, redact_text(facts.description)) + _number(3, facts.status)))
    parts.append(b"\x85\x01" + _fixed32(facts.flags))
    return b"".join(parts)


def _rare(facts: Facts) -> bytes:
    attributes, events, links = facts.dropped
    return b"".join(
        [
            _number(10, attributes),
            *(_field(11, _event(event)) for event in facts.events),
            _number(12, events),
            *(_field(13, _link(link)) for link in facts.links),
            _number(14, links),
        ]
    )


def _event(event: Event) -> bytes:
    return b"\x09" + _fixed64(event.at) + _name_field(2, event.name) + _attributes(3, event.attributes) + _number(4, event.dropped)


def _link(link: Link) -> bytes:
    ids = _field(1, link.trace_id) + _field(2, link.span_id) + _text(3, link.state)
    return ids + _attributes(4, link.attributes) + _number(5, link.dropped) + b"\x35" + _fixed32(link.flags)


def _attributes(number: int, attributes: Attributes) -> bytes:
    """A repeated field of KeyValue."""
    return b"".join([_remembered(number, key, value) for key, value in attributes.items()])


def _remembered(number: int, key: str, value: object) -> bytes:
    """Only what is small and equal to nothing but itself: (1,) is equal to (True,), and a list may hold whole documents."""
    if type(value) not in _SCALARS or (isinstance(value, str) and len(value) > _SHORT):
        return _attribute(number, key, value)
    return _known_attribute(number, key, value)


def _attribute(number: int, key: str, value: object) -> bytes:
    if not isinstance(value, _NO_SECRET) and secret_name(key):
        value = MASK
    return _field(number, _text(1, key) + _field(2, _any(value)))


_known_attribute: Final = lru_cache(maxsize=_REMEMBERED, typed=True)(_attribute)


def _any(value: object) -> bytes:
    """An AnyValue. An integer that OTLP has no room for becomes text."""
    if isinstance(value, str):
        return _field(1, _utf8(redact_text(value)))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + _varint(value & 0xFFFF_FFFF_FFFF_FFFF) if value in _INT64 else _field(1, str(value).encode())
    if isinstance(value, float):
        return b"\x21" + _double(value)
    return _composed(value)


def _composed(value: object) -> bytes:
    """A list, a mapping or bytes; nothing for None. Of anything else only the type is told, as its `__str__` may do or say anything."""
    if isinstance(value, bytes):
        return _field(7, redact(value))
    if isinstance(value, Mapping):
        return _field(6, _attributes(1, {str(key): one for key, one in value.items()}))
    if isinstance(value, Sequence):
        return _field(5, b"".join([_field(1, _any(one)) for one in value]))
    return b"" if value is None else _field(1, f"<{type(value).__name__}>".encode())


def _name_of(name: str) -> bytes:
    return _name(name) if len(name) <= _SHORT else _name_field(5, name)


@lru_cache(maxsize=_REMEMBERED)
def _name(name: str) -> bytes:
    return _name_field(5, name)


def _name_field(number: int, name: str) -> bytes:
    return _text(number, redact_text(name))


def _text(number: int, text: str) -> bytes:
    """A string field, left out where it is empty."""
    return _field(number, _utf8(text)) if text else b""


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _number(number: int, value: int) -> bytes:
    """A field of a small number, left out where it is 0."""
    return _varint(number << 3 | _VARINT) + _varint(value) if value else b""


def _field(number: int, data: bytes) -> bytes:
    """A field with a length."""
    return b"%b%b%b" % (_varint(number << 3 | _BYTES), _varint(len(data)), data)


def _varint(value: int) -> bytes:
    if value <= _SEVEN_BITS:
        return _SMALL[value]
    digits = bytearray()
    while value > _SEVEN_BITS:
        digits.append(value & _SEVEN_BITS | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


_SMALL: Final = tuple(bytes((value,)) for value in range(_SEVEN_BITS + 1))
