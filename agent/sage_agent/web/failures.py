"""What becomes of a request that fails, and of one whose caller leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, TypeVar

import sage_obs
from sage_agent.problems import RETRY_SOON_SECONDS, Problem, internal
from sage_agent.web.wire import ClientGoneError, Departure, Receive, Send, send_problem
from sage_agent.within import Started
from sage_obs.conventions import ErrorType

T = TypeVar("T")
_log = logging.getLogger("sage_agent")


async def answer_failure(send: Send, error: Exception, *, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    """Answer a request that ended in an exception; what is no Problem is a defect, whose traceback goes to the log only."""
    if isinstance(error, ClientGoneError):
        return
    problem = error if isinstance(error, Problem) else _defect(error)
    sage_obs.record_error(problem.error_type)
    await send_problem(send, problem, headers=headers)


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Do the work while its caller waits for it. Raises ClientGoneError once the caller has left, and Problem otherwise."""
    departure: Departure | None = None
    try:
        started = Started(work)
        if started.done:
            return started.value
        with (departure := Departure(receive)):
            result = await started
    except asyncio.CancelledError:
        if departure is not None and departure.gone:
            raise ClientGoneError from None
        raise _shutting_down() from None
    except Problem:
        raise
    except Exception as exc:
        raise _defect(exc) from exc
    if departure.gone:
        raise ClientGoneError
    return result


def _defect(error: Exception) -> Problem:
    """Log a defect, and say no more of it than that it happened."""
    _log.error("request failed", exc_info=error)
    return internal()


def _shutting_down() -> Problem:
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE, ErrorType.UNAVAILABLE, "The agent is shutting down; try again.", retry_after=RETRY_SOON_SECONDS
    )
