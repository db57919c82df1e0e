"""How a request ended, from everything that is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import orjson

from sage_obs.conventions import ErrorType, Outcome
from sage_obs.genai.taxonomy import classify, of_status, outcome_of, outcome_of_raised

MAX_BODY_BYTES: Final = 65_536
_RPC_INTERNAL: Final = -32603
_RPC_CLIENT: Final = range(-32700, -32599)
"""JSON-RPC 2.0, 5.1: what the caller did wrong, but for -32603, which is an internal error."""
_BY_TYPE: Final = frozenset({Outcome.REJECTED, Outcome.CANCELLED})
_CLIENT_CLOSED: Final = 499


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known when a request is over.

    `status` is 0 where no answer was begun; `complete` says that the last byte went out; `gone` that the caller left before it;
    `declared` is what `record_error` said, `in_body` what the answer itself says.
    """

    status: int
    complete: bool
    gone: bool = False
    raised: BaseException | None = None
    declared: ErrorType | None = None
    in_body: ErrorType | None = None


def judge(ending: Ending) -> tuple[Outcome, ErrorType | None]:
    """The outcome, and the kind of error where there was one.

    An error status says whose fault it is, and a declared type what it was; only rejection and cancellation are told by the type,
    as a 503 is both a full queue and a failure. An answer without an error status is judged by what was declared or stands in it; one
    that the application never finished is its failure.
    """
    if ending.gone and not ending.complete:
        return Outcome.CANCELLED, ending.declared or ErrorType.CANCELLED
    said = ending.declared or ending.in_body
    if ending.raised is not None and not ending.complete:
        return _raised(ending.raised, said)
    if ending.status >= HTTPStatus.BAD_REQUEST:
        return _refused(ending.status, said)
    if said is not None:
        return outcome_of(said), said
    if not ending.complete:
        return Outcome.SERVER_ERROR, ErrorType.INTERNAL
    return Outcome.SUCCESS, None


def _raised(error: BaseException, said: ErrorType | None) -> tuple[Outcome, ErrorType]:
    kind = said or classify(error)
    return outcome_of_raised(kind), kind


def _refused(status: int, said: ErrorType | None) -> tuple[Outcome, ErrorType]:
    kind = said or of_status(status)
    if outcome_of(kind) in _BY_TYPE:
        return outcome_of(kind), kind
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Outcome.REJECTED, kind
    if status == _CLIENT_CLOSED:
        return Outcome.CANCELLED, kind
    return (Outcome.SERVER_ERROR if status >= HTTPStatus.INTERNAL_SERVER_ERROR else Outcome.CLIENT_ERROR), kind


def error_in_body(body: bytes) -> ErrorType | None:
    """The kind of error a JSON answer reports in its top-level `error`; None where it reports none or is not JSON.

    `false`, `""` and `{}` are how envelopes with a fixed shape say that there was no error.
    """
    if b'"error"' not in body or len(body) > MAX_BODY_BYTES:
        return None
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    error = document.get("error") if isinstance(document, dict) else None
    return _kind_of(error) if error else None


def _kind_of(error: object) -> ErrorType:
    if not isinstance(error, Mapping):
        return ErrorType.SERVER_ERROR
    for key in ("type", "error_type"):
        if error.get(key) in tuple(ErrorType):
            return ErrorType(error[key])
    return of_rpc_code(error.get("code"))


def of_rpc_code(code: object) -> ErrorType:
    """The kind of error a JSON-RPC code stands for."""
    return ErrorType.INVALID_REQUEST if _callers_fault(code) else ErrorType.SERVER_ERROR


def _callers_fault(code: Any) -> bool:
    return isinstance(code, int) and code in _RPC_CLIENT and code != _RPC_INTERNAL
