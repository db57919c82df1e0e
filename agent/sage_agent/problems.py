"""What can go wrong with a request, as what the caller is told."""

from __future__ import annotations

import math
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from sage_obs.conventions import ErrorType

RETRY_SOON_SECONDS: Final = 1
"""What callers are told to wait where nobody named a time: the queue and a provider's hiccup clear within seconds."""


class Problem(Exception):  # noqa: N818 - in the sense of RFC 9457
    """An answer other than the one asked for.

    `error_type` is of the fixed taxonomy, `retry_after` in whole seconds where the caller may try again, `headers` go out with it.
    """

    def __init__(
        self,
        status: HTTPStatus,
        error_type: ErrorType,
        message: str,
        *,
        retry_after: int | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.message = message
        self.retry_after = retry_after
        self.headers = headers


class QueueFullError(Problem):
    """Every slot is taken, and so is every place in the queue, or waiting would take too long: `seconds`, as far as is known."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(
            HTTPStatus.SERVICE_UNAVAILABLE,
            ErrorType.QUEUE_FULL,
            "The agent is at capacity; try again.",
            retry_after=max(RETRY_SOON_SECONDS, math.ceil(seconds)),
        )


def invalid(message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> Problem:
    """The caller's request cannot be served as it is."""
    return Problem(status, ErrorType.INVALID_REQUEST, message)


def other_method(methods: Iterable[str]) -> Problem:
    """The path is right, and this is not what can be done with it."""
    allowed = ", ".join(methods)
    message = f"Use {allowed.partition(',')[0]}."
    return Problem(HTTPStatus.METHOD_NOT_ALLOWED, ErrorType.INVALID_REQUEST, message, headers=((b"allow", allowed.encode()),))


def internal() -> Problem:
    """A defect of ours, of which the caller learns only that it happened; the log has the rest."""
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, ErrorType.INTERNAL, "The agent failed to answer; its log says why.")


def unavailable(message: str) -> Problem:
    """Something this agent depends on does not answer now."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, ErrorType.UNAVAILABLE, message, retry_after=RETRY_SOON_SECONDS)
