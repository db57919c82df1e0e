"""A log record as one line: JSON with the guide's keys in the guide's order, or text for people."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from sage_obs.logs.safe import TOO_LONG, UNPRINTABLE, safe_text, safe_value
from sage_obs.privacy.redaction import redact, telling
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
SETTABLE: Final = frozenset({"request_id", "trace_id", "duration_ms", "span_id", CONVERSATION_ID, TENANT})
"""What a caller's extra of the same name may say better than the context; the other keys stay ours."""
_TAKEN: Final = frozenset(KEYS) - SETTABLE
_IDS: Final = ("request_id", "trace_id", "duration_ms", "span_id")
_LATER: Final = (CONVERSATION_ID, TENANT, "error.type", "error.stack")
_OPTIONS: Final = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE
_STACK_LIMIT: Final = 32_768
LONGEST_LINE: Final = 262_144
"""Bytes; of a longer line, which few readers take and ten thousand of which may wait in memory, the values are cut."""
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


class Extras:
    """What callers add to records, which is in them behind what every record has."""

    __slots__ = ("_own", "_reserved")

    def __init__(self) -> None:
        self._reserved = reserved_attributes()
        self._own = len(logging.LogRecord("", 0, "", 0, "", (), None).__dict__)

    def of(self, record: logging.LogRecord) -> dict[str, Any]:
        """The extras of one record. What has the name of a key that is ours is `extra.NAME`."""
        attributes = record.__dict__
        if len(attributes) <= self._own:
            return {}
        found: dict[str, Any] = {}
        for key in [*attributes][self._own :]:
            if key not in self._reserved and (value := attributes[key]) is not None:
                found[f"extra.{key}" if key in _TAKEN else key] = value
        return found


class Lines:
    """Turns records into lines. Whatever a record holds, it returns a line and never raises."""

    def __init__(self, identity: Identity, *, text: bool = False) -> None:
        self._identity = identity
        self._encode = _as_text if text else _as_json
        self._extras = Extras()
        self._suspicious = telling(_as_json(asdict(identity)))

    def line(self, record: logging.LogRecord) -> bytes:
        """The record as one redacted line that ends with a newline."""
        try:
            said = self._said(record)
            line = self._encode(self._fields(record, said))
            if len(line) > LONGEST_LINE:
                said = _cut(said)
                line = self._encode(self._fields(record, said))
            return redact(line) if self._suspicious or telling(_as_json(said)) else line
        except Exception:  # noqa: BLE001 - a damaged record is no reason to break the caller, and is worth a line
            return self._encode(
                {"timestamp": datetime.now(UTC), "level": "error", "message": _DAMAGED, "agent_id": self._identity.agent_id}
            )

    def _said(self, record: logging.LogRecord) -> dict[str, Any]:
        """All that a line says in the words of callers, and may hold a secret; nothing else of it needs to be searched for one."""
        said: dict[str, Any] = {"message": _message(record), "logger": record.name}
        if (request := request_var.get()) is not None:
            said["request_id"] = request.request_id
        if around := ambient_var.get():
            said |= around
        if record.exc_info or record.stack_info:
            said |= _error(record)
        return said | self._extras.of(record)

    def _fields(self, record: logging.LogRecord, said: dict[str, Any]) -> dict[str, Any]:
        """What the line says, in order, without what there is not."""
        identity = self._identity
        fields: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "message": None,
            "agent_id": identity.agent_id,
        }
        if (request := request_var.get()) is not None:
            fields |= {"request_id": None, "trace_id": request.trace_id}
            if "duration_ms" in said:
                fields["duration_ms"] = None
            fields["span_id"] = request.span_id
        elif not said.keys().isdisjoint(_IDS):
            fields |= {key: None for key in _IDS if key in said}
        fields |= {"logger": None, "service": identity.service, "version": identity.version}
        fields |= {key: None for key in _LATER if key in said}
        return fields | said


def _cut(said: Mapping[str, Any]) -> dict[str, Any]:
    """The same with long texts cut; and if that is not enough, without what is long by the number of its parts."""
    short = {key: value if key == "error.stack" else safe_value(value) for key, value in said.items()}
    room = LONGEST_LINE - len(_as_json({key: value for key, value in short.items() if key in KEYS}))
    for key in [key for key in short if key not in KEYS]:
        size = len(_as_json({key: short[key]}))
        if size > room:
            short[key], size = TOO_LONG, len(TOO_LONG) + len(key)
        room -= size
    return short


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
