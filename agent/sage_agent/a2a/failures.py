"""What goes wrong, in A2A's words."""

from __future__ import annotations

import logging
from typing import Final

from a2a.utils.errors import A2AError, InternalError, InvalidParamsError

import sage_obs
from sage_agent.problems import Problem, internal
from sage_obs.conventions import ErrorType

_log = logging.getLogger("sage_agent")
_LOGGERS: Final = (
    "a2a.server.agent_execution.active_task",
    "a2a.server.routes.jsonrpc_dispatcher",
    "a2a.server.request_handlers.default_request_handler_v2",
    "a2a.utils.version_validator",
)


def as_error(problem: Problem) -> A2AError:
    """What the caller is told of a problem, which is counted as it is on the lean path."""
    sage_obs.record_error(problem.error_type)
    data: dict[str, object] = {"type": problem.error_type.value, "request_id": sage_obs.current().request_id}
    if problem.retry_after is not None:
        data["retry_after"] = problem.retry_after
    kind = InvalidParamsError if problem.error_type is ErrorType.INVALID_REQUEST else InternalError
    return kind(problem.message, data)


def as_defect() -> A2AError:
    """Log the exception being handled, and say no more of it than that it happened."""
    _log.exception("request failed")
    return as_error(internal())


class _Expected(logging.Filter):
    """Drops what is a caller's error, or ours and logged already: a traceback each would drown the log under load."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record stays."""
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, A2AError) and not (error is not None and record.msg == "Failed to parse request params")


def quieten() -> None:
    """Keep callers' messages and headers, which the SDK logs when it debugs, and their mistakes out of the log."""
    logging.getLogger("a2a").setLevel(logging.INFO)
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.ERROR)
        if not any(isinstance(one, _Expected) for one in logger.filters):
            logger.addFilter(_Expected())
