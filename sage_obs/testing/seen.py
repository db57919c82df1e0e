"""What was recorded, as values that a test can compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the SDK takes a quarter of a second to load
    from opentelemetry.sdk.trace import ReadableSpan

Scalar = str | int | float | bool
Line = Mapping[str, Any]
"""A line of the log, as its reader parses it: `message`, `level` and the other keys that are set."""


@dataclass(frozen=True, slots=True)
class Span:
    """A finished span. Ids are hex digits; `parent_id` is "" for a root. `kind` is server, client, internal, producer or consumer.

    `error_type` is "" for one that did not fail; `seconds` is how long it took.
    """

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: Mapping[str, Scalar | tuple[Scalar, ...]]
    error_type: str
    seconds: float

    @classmethod
    def of(cls, span: ReadableSpan) -> Span:
        """The SDK's span as a value."""
        context, parent = span.get_span_context(), span.parent
        attributes: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in (span.attributes or {}).items()
        }
        return cls(
            name=span.name,
            kind=span.kind.name.lower(),
            trace_id="" if context is None else f"{context.trace_id:032x}",
            span_id="" if context is None else f"{context.span_id:016x}",
            parent_id="" if parent is None else f"{parent.span_id:016x}",
            attributes=attributes,
            error_type=str(attributes.get("error.type", "")),
            seconds=((span.end_time or 0) - (span.start_time or 0)) / 1e9,
        )
