"""The ASGI application with a service that misbehaves."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from sage_agent.flow.calls import as_problem
from sage_agent.flow.config import ConcurrencyConfig
from sage_agent.flow.service import Asking, Service
from sage_agent.llm.providers.base import Completion, Delta, Prompt, ProviderError
from sage_agent.server.config import ServerConfig
from sage_agent.web.app import App, operation
from sage_agent.web.wire import Departure, Event, read_body
from sage_obs.conventions import ErrorType
from tests.support.providers import calls_to

_LIMITS = ServerConfig(host="127.0.0.1", port=0, max_body_bytes=4096, drain_timeout=1.0, request_timeout=5.0)
_BODY = b'{"parts": [{"kind": "text", "text": "hi"}]}'


class Misbehaving:
    """A provider that fails with whatever it is given, streams after one piece."""

    name = "misbehaving"
    model = "m"

    def __init__(self, *errors: BaseException) -> None:
        self._errors = list(errors)

    async def complete(self, prompt: Prompt) -> Completion:
        """Fail once for each error, then answer."""
        if self._errors:
            raise self._errors.pop(0)
        return Completion(prompt.text, None)

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """One piece, then fail."""
        yield Delta(prompt.text)
        raise self._errors.pop(0)

    async def close(self) -> None:
        """Nothing to do."""


def _app(provider: Misbehaving) -> App:
    return App(Service(calls_to(provider), ConcurrencyConfig(1, 1, 1), asking=Asking(max_tokens=20)), _LIMITS)


async def _exchange(app: App, path: str = "/v1/messages") -> tuple[int, bytes]:
    events: list[Event] = [{"type": "http.request", "body": _BODY, "more_body": False}]
    sent: list[Event] = []

    async def receive() -> Event:
        return events.pop(0) if events else await asyncio.Future[Any]()

    async def send(event: Event) -> None:
        sent.append(event)

    await app({"type": "http", "method": "POST", "path": path, "headers": []}, receive, send)
    return sent[0]["status"], b"".join(event.get("body", b"") for event in sent[1:])


def test_a_defect_is_a_json_500_and_a_traceback_in_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    """The caller learns that something broke, the log what."""
    status, body = asyncio.run(_exchange(_app(Misbehaving(RuntimeError("secret detail")))))
    assert status == 500
    assert json.loads(body)["error"]["type"] == "internal"
    assert b"secret detail" not in body
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info


def test_a_defect_inside_a_stream_ends_it_with_an_error_event() -> None:
    """After the first piece the status is spent; the event says it."""
    status, body = asyncio.run(_exchange(_app(Misbehaving(RuntimeError("secret detail"))), "/v1/messages/stream"))
    assert status == 200
    assert body.rstrip().split(b"\n\n")[-1].startswith(b'event: error\ndata: {"error":{"type":"internal"')
    assert b"secret detail" not in body


def test_a_failed_request_gives_its_place_back() -> None:
    """With one worker, failures of every kind leave it free for the next request."""
    app = _app(Misbehaving(RuntimeError(), ProviderError(ErrorType.TIMEOUT, "late"), TimeoutError()))

    async def scenario() -> list[int]:
        return [(await _exchange(app))[0] for _ in range(4)]

    assert asyncio.run(scenario()) == [500, 504, 504, 200]


def test_failures_in_a_row_degrade_and_one_success_mends() -> None:
    """Five failures without a success between them are a failing model; refused prompts are not the model's failure."""
    refused, broken = ErrorType.CONTENT_FILTER, ErrorType.SERVER_ERROR
    errors = [ProviderError(refused, "no"), *[ProviderError(broken, "no")] * 5]

    async def scenario() -> list[bool]:
        calls, seen = calls_to(Misbehaving(*errors)), []
        app = App(Service(calls, ConcurrencyConfig(1, 1, 1), asking=Asking(max_tokens=20)), _LIMITS)
        for _ in range(7):
            await _exchange(app)
            seen.append(calls.failing)
        return seen

    assert asyncio.run(scenario()) == [False, False, False, False, False, True, False]


@pytest.mark.parametrize("error_type", list(ErrorType))
def test_every_provider_failure_has_a_status(error_type: ErrorType) -> None:
    """No failure of a provider is a success, and only refusals of the prompt are the caller's error."""
    status = as_problem(ProviderError(error_type, "no")).status
    callers = {ErrorType.RATE_LIMITED, ErrorType.CONTEXT_LENGTH, ErrorType.CONTENT_FILTER}
    assert (400 <= status < 500) == (error_type in callers)
    assert status >= 400


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/messages", "POST /v1/messages"),
        ("POST", "/v1/messages/stream", "POST /v1/messages/stream"),
        ("GET", "/v1/messages", "unmatched"),
        ("POST", "/v1/messages/123", "unmatched"),
    ],
)
def test_operations_are_a_closed_set(method: str, path: str, expected: str) -> None:
    """No path a caller makes up becomes a label."""
    assert operation({"method": method, "path": path}) == expected


def test_a_departed_caller_cancels_the_work() -> None:
    """Work is cancelled when the caller leaves, and the cancellation is told apart from others."""

    async def receive() -> Event:
        return {"type": "http.disconnect"}

    async def scenario() -> bool:
        departure = Departure(receive, after=0.0)
        with pytest.raises(asyncio.CancelledError), departure:
            await asyncio.Future[Any]()
        await asyncio.sleep(0)
        return departure.gone

    assert asyncio.run(scenario())


def test_work_that_is_done_is_not_watched_any_more() -> None:
    """Once the work is done nothing waits for the caller's next event."""

    async def scenario() -> int:
        before = len(asyncio.all_tasks())

        async def receive() -> Event:
            return await asyncio.Future[Event]()

        with Departure(receive, after=0.0):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        return len(asyncio.all_tasks()) - before

    assert asyncio.run(scenario()) == 0


def test_a_long_body_in_small_pieces_is_not_copied_for_each() -> None:
    """Sixty megabytes in pieces of four thousand bytes take the time of one copy, not of fifteen thousand."""
    pieces = iter([{"body": b"x" * 4000, "more_body": True}] * 15_000 + [{"body": b"", "more_body": False}])

    async def receive() -> Event:
        return {"type": "http.request", **next(pieces)}

    async def read() -> bytes:
        return await read_body({}, receive, limit=100_000_000, deadline=asyncio.get_running_loop().time() + 60)

    before = time.process_time()
    assert len(asyncio.run(read())) == 60_000_000
    assert time.process_time() - before < 10
