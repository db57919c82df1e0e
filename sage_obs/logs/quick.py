"""The line of an ordinary record, put together from parts that are known already: the same JSON as `Lines` makes of it.

An ordinary record has no exception and no extra that says better what the context says. What its logger and the process have in common
with every other line is searched for secrets once, what a caller says in this one every time.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import orjson

from sage_obs.logs.clock import Clock
from sage_obs.logs.lines import LONGEST_LINE, SETTABLE, Extras, Identity, Lines
from sage_obs.logs.safe import safe_text, safe_value
from sage_obs.privacy.redaction import redact, telling
from sage_obs.tracing.ambient import CONVERSATION_ID, TENANT
from sage_obs.tracing.context import ambient_var, request_var

_REMEMBERED: Final = 2048
"""How many pairs of level and logger are kept as text; a service has few."""
_Parts = tuple[str, str, str, bool]
"""What stands before the message, after it, and after the ids; and whether anything of that hints at a secret."""
_NANOSECONDS: Final = 1_000_000_000
_BEGIN: Final = '{"timestamp":"'
_OPTIONS: Final = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE


def _inside(text: str) -> str:
    """A text as it stands between the quotes of JSON; what is no Unicode in it is replaced."""
    return orjson.dumps(safe_text(text))[1:-1].decode()


class QuickLines:
    """Turns ordinary records into lines, and leaves the others to `thorough`."""

    def __init__(self, identity: Identity, thorough: Lines) -> None:
        self._thorough = thorough
        self._clock = Clock()
        self._extras = Extras()
        self._agent = f',"agent_id":"{_inside(identity.agent_id)}"'
        self._source = f'"service":"{_inside(identity.service)}","version":"{_inside(identity.version)}"'
        self._known: dict[tuple[str, str], _Parts] = {}

    def line(self, record: logging.LogRecord) -> bytes:
        """The record as one redacted line that ends with a newline."""
        try:
            extras = self._extras.of(record)
            if record.exc_info or record.stack_info or (extras and not SETTABLE.isdisjoint(extras)):
                return self._thorough.line(record)
            before, agent, source, suspicious = self._known.get((record.levelname, record.name)) or self._learn(
                record.levelname, record.name
            )
            said, rest, ids = orjson.dumps(record.getMessage()), b"}\n", ""
            if extras:
                rest = b"," + orjson.dumps(extras, default=safe_value, option=_OPTIONS)[1:]
            if around := ambient_var.get():
                rest = _identity(around) + rest
            if (request := request_var.get()) is not None:
                ids = f',"request_id":"{request.request_id}","trace_id":"{request.trace_id}","span_id":"{request.span_id}"'
            head, middle = f"{_BEGIN}{self._clock.text(int(record.created * _NANOSECONDS))}{before}", f"{agent}{ids}{source}"
            line = b"".join((head.encode(), said, middle.encode(), rest))
            if len(line) > LONGEST_LINE:
                return self._thorough.line(record)
            said = said + rest if request is None or not request.named else said + ids.encode() + rest
            return redact(line) if suspicious or telling(said) else line
        except Exception:  # noqa: BLE001 - a value of the caller's that is not as it should be: the thorough way has an answer to each
            return self._thorough.line(record)

    def _learn(self, level: str, logger: str) -> _Parts:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        before = f'","level":"{_inside(level.lower())}","message":'
        source = f',"logger":"{_inside(logger)}",{self._source}'
        suspicious = telling(f"{before}{self._agent}{source}".encode())
        known = self._known[level, logger] = before, self._agent, source, suspicious
        return known


def _identity(around: Mapping[str, str]) -> bytes:
    said = {key: around[key] for key in (CONVERSATION_ID, TENANT) if key in around}
    return b"," + orjson.dumps(said, default=safe_value)[1:-1] if said else b""
