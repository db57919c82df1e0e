"""Exceptions and HTTP statuses in terms of the fixed error taxonomy, and what a caller makes of each kind of error."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from sage_obs.conventions import ErrorType, Outcome

_BY_STATUS: Final = {
    400: ErrorType.INVALID_REQUEST,
    401: ErrorType.AUTH,
    403: ErrorType.AUTH,
    408: ErrorType.TIMEOUT,
    429: ErrorType.RATE_LIMITED,
    499: ErrorType.CANCELLED,
    502: ErrorType.UNAVAILABLE,
    503: ErrorType.UNAVAILABLE,
    504: ErrorType.TIMEOUT,
    529: ErrorType.UNAVAILABLE,
}
_BY_CODE: Final = {
    "context_length_exceeded": ErrorType.CONTEXT_LENGTH,
    "content_filter": ErrorType.CONTENT_FILTER,
    "content_policy_violation": ErrorType.CONTENT_FILTER,
}
"""Codes that OpenAI-compatible servers put in `error.code`, and their clients on the exception."""
_BY_KIND: Final = {
    **_BY_CODE,
    "api_error": ErrorType.SERVER_ERROR,
    "authentication_error": ErrorType.AUTH,
    "invalid_prompt": ErrorType.INVALID_REQUEST,
    "invalid_request_error": ErrorType.INVALID_REQUEST,
    "overloaded_error": ErrorType.UNAVAILABLE,
    "permission_error": ErrorType.AUTH,
    "rate_limit_error": ErrorType.RATE_LIMITED,
    "rate_limit_exceeded": ErrorType.RATE_LIMITED,
    "server_error": ErrorType.SERVER_ERROR,
    "timeout_error": ErrorType.TIMEOUT,
}
"""What an error in the middle of an answer, which has the status of a success, calls itself in its `code` or `type`."""
_STATUSES: Final = range(400, 600)
_TOO_LONG: Final = ("prompt is too long", "exceeds the maximum number of tokens")
"""What Anthropic and Google say of it, who have no code of its own for it."""
_BY_NAME: Final = (
    ("ratelimit", ErrorType.RATE_LIMITED),
    ("timeout", ErrorType.TIMEOUT),
    ("timelimit", ErrorType.TIMEOUT),
    ("authentication", ErrorType.AUTH),
    ("permissiondenied", ErrorType.AUTH),
    ("contentfilter", ErrorType.CONTENT_FILTER),
    ("connect", ErrorType.UNAVAILABLE),
    ("remoteprotocol", ErrorType.UNAVAILABLE),
    ("readerror", ErrorType.UNAVAILABLE),
    ("writeerror", ErrorType.UNAVAILABLE),
    ("graphinterrupt", ErrorType.CANCELLED),
    ("graphdrained", ErrorType.CANCELLED),
    ("parentcommand", ErrorType.CANCELLED),
    ("responsevalidation", ErrorType.SERVER_ERROR),
)
"""What the names of exceptions hold in the client libraries, which cannot be imported to ask.

LangGraph's three are no errors: a graph stops to ask a person or because it is asked to, or goes on in the one around it.
"""

_OUTCOMES: Final = {
    ErrorType.RATE_LIMITED: Outcome.REJECTED,
    ErrorType.QUEUE_FULL: Outcome.REJECTED,
    ErrorType.CANCELLED: Outcome.CANCELLED,
    ErrorType.AUTH: Outcome.CLIENT_ERROR,
    ErrorType.CONTENT_FILTER: Outcome.CLIENT_ERROR,
    ErrorType.CONTEXT_LENGTH: Outcome.CLIENT_ERROR,
    ErrorType.INVALID_REQUEST: Outcome.CLIENT_ERROR,
    ErrorType.SIGNATURE_INVALID: Outcome.CLIENT_ERROR,
}


def outcome_of(error_type: ErrorType) -> Outcome:
    """How a request or call that failed this way ended; what is nobody else's fault is the server's."""
    return _OUTCOMES.get(error_type, Outcome.SERVER_ERROR)


def of_status(status: int) -> ErrorType:
    """The kind of error an HTTP status of 400 or more stands for."""
    fallback = ErrorType.SERVER_ERROR if status >= HTTPStatus.INTERNAL_SERVER_ERROR else ErrorType.INVALID_REQUEST
    return _BY_STATUS.get(status, fallback)


def of_code(code: object) -> ErrorType | None:
    """The kind of error a code or type in an answer's body stands for, None where it is not known."""
    return _BY_KIND.get(code) if isinstance(code, str) else None


def outcome_of_raised(error_type: ErrorType) -> Outcome:
    """How a request ended that let an exception of this kind out: whatever a call inside it met, its caller was failed."""
    return Outcome.CANCELLED if error_type is ErrorType.CANCELLED else Outcome.SERVER_ERROR


def classify(error: BaseException) -> ErrorType:
    """The kind of error an exception stands for, by class, code, status and name; `internal` where nothing tells. Never raises."""
    try:
        return _classify(error)
    except Exception:  # noqa: BLE001 - the exception's class is the user's
        return ErrorType.INTERNAL


def _classify(error: BaseException) -> ErrorType:
    if isinstance(error, (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)) or _is_trios(error):
        return ErrorType.CANCELLED
    if isinstance(error, TimeoutError):
        return ErrorType.TIMEOUT
    if isinstance(error, ConnectionError):
        return ErrorType.UNAVAILABLE
    code = _attribute(error, "code")
    if isinstance(code, str) and code in _BY_CODE:
        return _BY_CODE[code]
    status = _status(error)
    if status == HTTPStatus.BAD_REQUEST and any(said in str(error) for said in _TOO_LONG):
        return ErrorType.CONTEXT_LENGTH
    return of_status(status) if status >= HTTPStatus.BAD_REQUEST else _in_body(error) or _by_name(error)


def _is_trios(error: BaseException) -> bool:
    """Whether it is what trio cancels a task with, as far as that shows without importing it."""
    return type(error).__name__ == "Cancelled" and not isinstance(error, Exception)


def _status(error: BaseException) -> int:
    """The status a client library keeps on its exception, under either name, or on the response it belongs to; 0 for none."""
    for holder in (error, _attribute(error, "response")):
        status = _attribute(holder, "status_code")
        if isinstance(status, int):
            return status
    code = _attribute(error, "code")
    return code if isinstance(code, int) and code in _STATUSES else 0


def _in_body(error: BaseException) -> ErrorType | None:
    """The kind of error in the body that a client library keeps on its exception; the body has it, or an `error` in it."""
    body = _attribute(error, "body")
    if not isinstance(body, Mapping):
        return None
    inner = body.get("error")
    said = [one.get(key) for one in (inner, body) if isinstance(one, Mapping) for key in ("code", "type")]
    return next((kind for kind in map(of_code, said) if kind is not None), ErrorType.SERVER_ERROR)


def _attribute(holder: object, name: str) -> object:
    """An attribute, None where there is none or it is a property that raises."""
    try:
        found: object = getattr(holder, name, None)
    except Exception:  # noqa: BLE001 - the property is the user's
        return None
    return found


def _by_name(error: BaseException) -> ErrorType:
    name = type(error).__name__.lower()
    return next((kind for part, kind in _BY_NAME if part in name), ErrorType.INTERNAL)
