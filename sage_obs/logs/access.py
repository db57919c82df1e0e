"""The access line without the logging module: one for every request, so it is put together from parts that are known already."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Final

import orjson

from sage_obs.access import LOGGER, Facts, log
from sage_obs.logs.clock import Clock
from sage_obs.logs.lines import Identity
from sage_obs.logs.safe import safe_text
from sage_obs.logs.writer import Writer
from sage_obs.privacy.redaction import redact
from sage_obs.tracing.ambient import CONVERSATION_ID, TENANT, ambient
from sage_obs.tracing.context import Request

_REMEMBERED: Final = 2048
"""How many kinds of request are kept as text; a service has few, or meets each of them once."""
_LONG: Final = 256
"""A path of more characters is not worth keeping, and a caller could fill the memory with such."""


class AccessLines:
    """Turns requests into lines: the same JSON as `Lines` makes of the records of `sage_obs.access.log`.

    What requests have in common is redacted and put together once for each kind of them.
    """

    def __init__(self, identity: Identity) -> None:
        self._clock = Clock()
        self._agent = _inside(identity.agent_id)
        self._source = f'"logger":"{LOGGER.name}","service":"{_inside(identity.service)}","version":"{_inside(identity.version)}"'
        self._known: dict[Facts, tuple[str, str]] = {}

    def line(self, request: Request, seconds: float, facts: Facts, *, at: int) -> bytes:
        """The line of a request that ended at this Unix time in nanoseconds."""
        before, after = self._known.get(facts) or self._learn(facts)
        around = ambient()
        return (
            f'{{"timestamp":"{self._clock.text(at)}{before}{_redacted(request.request_id) if request.named else request.request_id}'
            f'","trace_id":"{request.trace_id}","duration_ms":{seconds * 1000:.3f},"span_id":"{request.span_id}",{self._source}'
            f"{_identity(around) if around else ''}{after}"
        ).encode()

    def _learn(self, facts: Facts) -> tuple[str, str]:
        """What stands between the time and the request's id, and after the identity."""
        method, path, status, operation, outcome, error_type = facts
        failed = "" if error_type is None else f',"error_type":"{error_type.value}"'
        message = _inside(f"{method} {path} {status or '-'}")
        before = f'","level":"info","message":"{message}","agent_id":"{self._agent}","request_id":"'
        after = f',"operation":"{_inside(operation)}","outcome":"{outcome.value}"{failed}}}\n'
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        if len(path) <= _LONG and len(method) <= _LONG:
            self._known[facts] = before, after
        return before, after


def _inside(text: str) -> str:
    """A text as it stands between the quotes of JSON, redacted; what is no Unicode in it is replaced."""
    return redact(orjson.dumps(safe_text(text)))[1:-1].decode()


def _redacted(request_id: str) -> str:
    """An id that the caller chose; its characters are fit for JSON as they are (see `sane_request_id`)."""
    return redact(request_id.encode()).decode()


def _identity(around: Mapping[str, str]) -> str:
    said = {key: safe_text(around[key]) for key in (CONVERSATION_ID, TENANT) if key in around}
    return "," + redact(orjson.dumps(said))[1:-1].decode() if said else ""


class AccessLog:
    """Writes access lines: straight to the writer, or through the logging module where somebody else listens on the way."""

    def __init__(self, identity: Identity, writer: Writer, handler: logging.Handler) -> None:
        self._lines = AccessLines(identity)
        self._writer = writer
        self._handler = handler
        self._handlers = [handler]
        self._root = logging.getLogger()

    def __call__(self, request: Request, seconds: float, facts: Facts) -> None:
        """Write the line of a request that ended now."""
        if self._nobody_else_listens():
            self._writer.write(self._lines.line(request, seconds, facts, at=time.time_ns()), urgent=False)
        else:
            log(request, seconds, facts)

    def _nobody_else_listens(self) -> bool:
        """Whether a record would go to our handler and nowhere else, and nothing on its way could change it."""
        if self._root.handlers != self._handlers or self._handler.filters:
            return False
        logger: logging.Logger | None = LOGGER
        while logger is not None and logger is not self._root:
            if logger.handlers or logger.filters or not logger.propagate:
                return False
            logger = logger.parent
        return True
