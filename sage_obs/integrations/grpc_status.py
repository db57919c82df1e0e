"""How an RPC ended: gRPC's status codes in terms of the fixed error taxonomy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sage_obs.conventions import ErrorType, Outcome
from sage_obs.genai.taxonomy import classify, outcome_of, outcome_of_raised

OK: Final = "OK"
_CODES: Final = {
    "CANCELLED": ErrorType.CANCELLED,
    "UNKNOWN": ErrorType.SERVER_ERROR,
    "INVALID_ARGUMENT": ErrorType.INVALID_REQUEST,
    "DEADLINE_EXCEEDED": ErrorType.TIMEOUT,
    "NOT_FOUND": ErrorType.INVALID_REQUEST,
    "ALREADY_EXISTS": ErrorType.INVALID_REQUEST,
    "PERMISSION_DENIED": ErrorType.AUTH,
    "RESOURCE_EXHAUSTED": ErrorType.RATE_LIMITED,
    "FAILED_PRECONDITION": ErrorType.INVALID_REQUEST,
    "ABORTED": ErrorType.INVALID_REQUEST,
    "OUT_OF_RANGE": ErrorType.INVALID_REQUEST,
    "UNIMPLEMENTED": ErrorType.SERVER_ERROR,
    "INTERNAL": ErrorType.SERVER_ERROR,
    "UNAVAILABLE": ErrorType.UNAVAILABLE,
    "DATA_LOSS": ErrorType.SERVER_ERROR,
    "UNAUTHENTICATED": ErrorType.AUTH,
}
"""The kind of error of each code, which says whose fault it was too. A method that a service has and does not implement is its failure
(OpenTelemetry's conventions for RPC, which count the same codes as a server's errors); one that it does not have is the caller's."""
_BY_TYPE: Final = frozenset({Outcome.REJECTED, Outcome.CANCELLED})
_NUMBERS: Final = dict(enumerate((OK, *_CODES)))


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known when an RPC is over.

    `code` is the name of what the service has set, `gone` that its caller left before the last message, `late` that the deadline has
    passed by then; `declared` is what `record_error` said.
    """

    code: str
    gone: bool = False
    late: bool = False
    raised: BaseException | None = None
    declared: ErrorType | None = None

    @property
    def sent(self) -> str:
        """The code that the caller has, or would have."""
        if self.gone:
            return "DEADLINE_EXCEEDED" if self.late else "CANCELLED"
        return "UNKNOWN" if self.raised is not None and self.code == OK else self.code


def name_of(code: Any) -> str:
    """The name of a code as services set it: a `grpc.StatusCode`, its number or nothing."""
    if code is None:
        return OK
    name = getattr(code, "name", None) or _NUMBERS.get(code, "UNKNOWN")
    return name if name in _CODES or name == OK else "UNKNOWN"


def judge(ending: Ending) -> tuple[Outcome, ErrorType | None]:
    """The outcome, and the kind of error where there was one. What `record_error` said of an error says what it was, not whose."""
    declared, sent = ending.declared, ending.sent
    if sent == OK:
        return (Outcome.SUCCESS, None) if declared is None else (outcome_of(declared), declared)
    if not ending.gone and ending.raised is not None and ending.code == OK:
        kind = declared or _raised(ending.raised)
        return outcome_of_raised(kind), kind
    kind = declared or _CODES[sent]
    return (outcome_of(kind) if outcome_of(kind) in _BY_TYPE else outcome_of(_CODES[sent])), kind


def _raised(error: BaseException) -> ErrorType:
    """The kind of an exception; one that a call to another service ended with says it by its own code."""
    code = getattr(error, "code", None)
    if type(error).__module__.startswith("grpc") and callable(code):
        return _CODES.get(name_of(code()), ErrorType.INTERNAL)
    return classify(error)
