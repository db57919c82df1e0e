"""A log record as one line: JSON with the guide's keys in the guide's order, or text for people."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from sage_obs.logs.safe import UNPRINTABLE, safe_text, safe_value
from sage_obs.privacy.redaction import redact
from sage_obs.tracing.ambient import CONVERSATION_ID, TENANT
from sage_obs.tracing.context import ambient_var, request_var

KEYS: Final = (
    "timestamp",
    "level",
    "message",
    "agent_id",
    "request_id",
    "trace_id",
    "duration_ms",
    "span_id",
    "logger",
    "service",
    "version",
    CONVERSATION_ID,
    TENANT,
    "error.type",
    "error.stack",
)
"""The keys that have a place; the first seven are the guide's. The caller's extras follow."""
_SETTABLE: Final = frozenset({"request_id", "trace_id", "duration_ms", "span_id", CONVERSATION_ID, TENANT})
"""What a caller's extra of the same name may say better than the context; the other keys stay ours."""
_OPTIONS: Final = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE
_STACK_LIMIT: Final = 32_768
_DAMAGED: Final = "the log record could not be read"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is speaking, the same on every line."""

    agent_id: str
    service: str
    version: str


def reserved_attributes() -> frozenset[str]:
    """What every record has, so that the rest are the caller's extras."""
    from pythonjsonlogger.core import RESERVED_ATTRS

    return frozenset({*RESERVED_ATTRS, "taskName", "color_message"})


class Lines:
    """Turns records into lines. Whatever a record holds, it returns a line and never raises."""

    def __init__(self, identity: Identity, *, text: bool = False) -> None:
        self._identity = identity
        self._encode = _as_text if text else _as_json
        self._reserved = reserved_attributes()

    def line(self, record: logging.LogRecord) -> bytes:
        """The record as one redacted line that ends with a newline."""
        try:
            return redact(self._encode(self._fields(record)))
        except Exception:  # noqa: BLE001 - a damaged record is no reason to break the caller, and is worth a line
            return self._encode(
                {"timestamp": datetime.now(UTC), "level": "error", "message": _DAMAGED, "agent_id": self._identity.agent_id}
            )

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """What the line says, in order, without what there is not."""
        request, around, identity = request_var.get(), ambient_var.get(), self._identity
        fields: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "message": _message(record),
            "agent_id": identity.agent_id,
        }
        if request is not None:
            fields |= {"request_id": request.request_id, "trace_id": request.trace_id, "span_id": request.span_id}
        fields |= {"logger": record.name, "service": identity.service, "version": identity.version}
        if around:
            fields |= {key: around[key] for key in (CONVERSATION_ID, TENANT) if key in around}
        if record.exc_info or record.stack_info:
            fields |= _error(record)
        if record.__dict__.keys() - self._reserved:
            return _in_order(fields | dict(self._extras(record)))
        return fields

    def _extras(self, record: logging.LogRecord) -> Iterable[tuple[str, object]]:
        for key, value in record.__dict__.items():
            if key not in self._reserved and value is not None:
                yield (f"extra.{key}" if key in KEYS and key not in _SETTABLE else key), value


def _in_order(fields: dict[str, Any]) -> dict[str, Any]:
    """The same, with what extras said of the keys that have a place in that place."""
    if fields.keys().isdisjoint(_SETTABLE):
        return fields
    return {key: fields[key] for key in KEYS if key in fields} | fields


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - the arguments are the caller's
        return f"{safe_text(record.msg)} (its arguments could not be formatted)"


def _error(record: logging.LogRecord) -> Mapping[str, str]:
    info = record.exc_info
    if not isinstance(info, tuple) or info[0] is None:
        return {"error.stack": record.stack_info} if record.stack_info else {}
    try:
        stack = "".join(traceback.format_exception(*info))
    except Exception:  # noqa: BLE001 - the exception is the caller's
        stack = UNPRINTABLE
    return {"error.type": error_type_name(info[0]), "error.stack": stack[-_STACK_LIMIT:]}


def error_type_name(kind: type[BaseException]) -> str:
    """An exception's class as `error.type` has it: with its module unless it is built in."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _as_json(fields: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(fields, default=safe_value, option=_OPTIONS)
    except (orjson.JSONEncodeError, RecursionError):
        safe = {safe_text(key): value if isinstance(value, datetime) else safe_value(value) for key, value in fields.items()}
        return orjson.dumps(safe, option=_OPTIONS)


_SHOWN_APART: Final = frozenset({"timestamp", "level", "message", "logger", "error.stack", "agent_id", "service", "version", "span_id"})


def _as_text(fields: Mapping[str, Any]) -> bytes:
    """`12:00:01.123 INFO    logger  message  key=value`, then the stack; one record is one line but for its stack."""
    rest = " ".join(f"{key}={safe_text(value)}" for key, value in fields.items() if key not in _SHOWN_APART)
    time = fields["timestamp"].astimezone().strftime("%H:%M:%S.%f")[:-3]
    head = f"{time} {fields['level'].upper():<8} {fields.get('logger', '')}  {fields['message']}  {rest}".rstrip()
    stack = fields.get("error.stack", "")
    line = head.replace("\r", "\\r").replace("\n", "\\n") + "\n" + (stack.rstrip("\n") + "\n" if stack else "")
    return line.encode("utf-8", "replace")
