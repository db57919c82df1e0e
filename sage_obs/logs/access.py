"""The access line without the logging module: one for every request, so it is put together from parts that are known already."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Final

import orjson

from sage_obs.access import LOGGER, Served, log
from sage_obs.conventions import ErrorType, Outcome
from sage_obs.logs.lines import Identity
from sage_obs.logs.writer import Writer
from sage_obs.privacy.redaction import redact
from sage_obs.tracing.ambient import CONVERSATION_ID, TENANT, ambient

_REMEMBERED: Final = 2048
"""How many texts that come from outside are kept redacted; a service has few paths, or each is met once."""
_NANOSECONDS: Final = 1_000_000_000


class _Texts:
    """Texts from outside as the inside of a JSON string, redacted, in the form in which the line quotes them."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        """Raises orjson.JSONEncodeError for what JSON cannot hold."""
        found = self._known.get(text)
        return self._learn(text) if found is None else found

    def _learn(self, text: str) -> str:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        inside = self._known[text] = redact(orjson.dumps(text))[1:-1].decode()
        return inside


class _Seconds:
    """The time as the line has it; its date is made once a second."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def __call__(self, nanoseconds: int) -> str:
        second, rest = divmod(nanoseconds, _NANOSECONDS)
        if second != self._second:
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        return f"{self._text}.{rest // 1000:06d}Z"


class AccessLines:
    """Turns requests into lines: the same JSON as `Lines` makes of the records of `sage_obs.access.log`."""

    def __init__(self, identity: Identity) -> None:
        text = _Texts()
        self._text = text
        self._time = _Seconds()
        self._agent = text(identity.agent_id)
        self._source = f'"logger":"{LOGGER.name}","service":"{text(identity.service)}","version":"{text(identity.version)}"'
        self._outcomes = {outcome: f',"outcome":"{outcome.value}"' for outcome in Outcome}
        self._errors = {kind: f',"error_type":"{kind.value}"' for kind in ErrorType}

    def line(self, served: Served, nanoseconds: int) -> bytes:
        """The line of a request that ended at this Unix time. Raises ValueError for a text that JSON cannot hold."""
        request, method, path, status, operation, outcome, error_type, _ = served
        text, around = self._text, ambient()
        return (
            f'{{"timestamp":"{self._time(nanoseconds)}","level":"info","message":"{text(method)} {text(path)} {status or "-"}"'
            f',"agent_id":"{self._agent}","request_id":"{_redacted(request.request_id) if request.named else request.request_id}"'
            f',"trace_id":"{request.trace_id}","duration_ms":{served.duration_ms},"span_id":"{request.span_id}",{self._source}'
            f'{_identity(around) if around else ""},"operation":"{text(operation)}"'
            f"{self._outcomes[outcome]}{'' if error_type is None else self._errors[error_type]}}}\n"
        ).encode()


def _redacted(request_id: str) -> str:
    """An id that the caller chose; its characters are fit for JSON as they are (see `sane_request_id`)."""
    return redact(request_id.encode()).decode()


def _identity(around: Mapping[str, str]) -> str:
    said = {key: around[key] for key in (CONVERSATION_ID, TENANT) if key in around}
    return "," + redact(orjson.dumps(said))[1:-1].decode() if said else ""


class AccessLog:
    """Writes access lines: straight to the writer, or through the logging module where somebody else listens on the way."""

    def __init__(self, identity: Identity, writer: Writer, handler: logging.Handler) -> None:
        self._lines = AccessLines(identity)
        self._writer = writer
        self._handler = handler
        self._handlers = [handler]
        self._root = logging.getLogger()

    def __call__(self, served: Served) -> None:
        """Write the line of a request that ended now."""
        if self._nobody_else_listens():
            try:
                line = self._lines.line(served, time.time_ns())
            except ValueError:  # a text that is no Unicode: the records' way copes with everything
                log(served)
            else:
                self._writer.write(line, urgent=False)
        else:
            log(served)

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
