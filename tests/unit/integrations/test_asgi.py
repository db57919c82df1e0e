from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import sage_obs
from sage_obs.conventions import (
    ERRORS,
    EXPERIENCE,
    REQUEST_DURATION,
    REQUEST_OVERHEAD,
    REQUESTS,
    REQUESTS_IN_FLIGHT,
    TIME_TO_FIRST_BYTE,
    Outcome,
)
from sage_obs.health.board import board
from sage_obs.tracing.ambient import ambient
from tests.support.asgi import Answer, Scope, answering, call, scope_of, serve
from tests.support.metrics import children, value

Start = Callable[..., sage_obs.Handle]
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def _named(app: Any) -> Any:
    return sage_obs.instrument_app(app, operation=lambda scope: f"{scope['method']} {scope['path']}")


def test_a_request_is_counted_once_with_everything_bounded_at_zero(instrument: Start) -> None:
    """One request is one in every family, and its other outcomes exist at 0."""
    instrument()
    answer = call(_named(_named(answering(200, b"{}"))), "GET", "/x")
    assert answer.status == 200
    assert value(REQUESTS, operation="GET /x", outcome="success", protocol="http", agent_id="a1") == 1
    assert value(REQUESTS) == 1
    assert {labels["outcome"] for labels in children(REQUESTS)} == {outcome.value for outcome in Outcome}
    for family in (REQUEST_DURATION, REQUEST_OVERHEAD):
        assert value(family, suffix="_count", operation="GET /x") == 1
    assert value(EXPERIENCE, outcome="satisfied") == 1
    assert value(TIME_TO_FIRST_BYTE, suffix="_count") == 0
    assert value(REQUESTS_IN_FLIGHT) == 0


def test_a_request_is_in_flight_while_it_is_served(instrument: Start) -> None:
    """The gauge is 1 inside the request and 0 after it."""
    instrument()
    seen = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        seen.append(value(REQUESTS_IN_FLIGHT))
        await answering(200)(scope, receive, send)

    call(_named(app), "GET", "/x")
    assert seen == [1]
    assert value(REQUESTS_IN_FLIGHT) == 0


def test_an_exception_counts_and_is_raised_untouched(instrument: Start) -> None:
    """The server sees the very exception the application raised, and the failure is on the counters."""
    instrument()
    raised = ValueError("mine")

    async def app(_scope: Scope, _receive: Any, _send: Any) -> None:
        raise raised

    with pytest.raises(ValueError, match="mine") as caught:
        call(_named(app), "GET", "/x")
    assert caught.value is raised
    assert value(REQUESTS, outcome="server_error") == 1
    assert value(ERRORS, error_type="internal") == 1
    assert value(EXPERIENCE, outcome="frustrated") == 1
    assert value(REQUESTS_IN_FLIGHT) == 0


def test_an_error_inside_a_200_counts(instrument: Start) -> None:
    """A JSON-RPC error is the failure it is, whatever its status."""
    instrument()
    call(_named(answering(200, b'{"jsonrpc": "2.0", "error": {"code": -32603}}')), "POST", "/rpc")
    call(_named(answering(200, b'{"error": null}')), "POST", "/rpc")
    assert value(REQUESTS, operation="POST /rpc", outcome="server_error") == 1
    assert value(REQUESTS, operation="POST /rpc", outcome="success") == 1


@pytest.mark.parametrize(("body", "outcome"), [(b'{"error": {"code": -32603}}', "server_error"), (b'{"result": 1}', "success")])
def test_an_answer_that_a_middleware_sends_again_in_pieces_is_no_stream(instrument: Start, body: bytes, outcome: str) -> None:
    """Behind Starlette's BaseHTTPMiddleware an error inside a 200 is still found, and a plain answer has no time to a first byte."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.responses import Response
    from starlette.routing import Route

    async def rpc(_request: Any) -> Response:
        return Response(body, media_type="application/json")

    async def passing(request: Any, following: Any) -> Any:
        return await following(request)

    instrument(libraries=["starlette"])
    call(Starlette(routes=[Route("/rpc", rpc)], middleware=[Middleware(BaseHTTPMiddleware, dispatch=passing)]), "GET", "/rpc")
    assert value(REQUESTS, outcome=outcome) == value(REQUESTS) == 1
    assert value(TIME_TO_FIRST_BYTE, suffix="_count") == 0


def _sending(*events: dict[str, Any], headers: tuple[tuple[bytes, bytes], ...] = ()) -> Any:
    """An application that answers 200 with these events."""

    async def app(_scope: Scope, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for event in events:
            await send(event)

    return app


JSON = (b"content-type", b"application/problem+json; charset=utf-8")
PIECE = {"type": "http.response.body", "body": b" " * 60_000, "more_body": True}
ERROR = {"type": "http.response.body", "body": b'{"error": 1}', "more_body": True}
LAST = {"type": "http.response.body"}


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        ((ERROR, LAST), "server_error"),
        ((PIECE, ERROR, LAST), "server_error"),
        ((ERROR, PIECE, PIECE, LAST), "success"),
        ((), "server_error"),
        ((PIECE,), "server_error"),
        (({"type": "http.response.pathsend", "path": "/x"},), "success"),
        (({"type": "http.response.zerocopysend", "file": 0, "more_body": True}, LAST), "success"),
    ],
    ids=["error", "spread", "too long", "no body", "no end", "a file", "a descriptor"],
)
def test_an_answer_is_judged_by_its_end_and_by_what_fits_of_its_json(
    instrument: Start, events: tuple[dict[str, Any], ...], outcome: str
) -> None:
    """Up to 64 KiB of JSON are read in whatever pieces, and an application that returns without its last byte has failed."""
    instrument()
    call(_named(_sending(*events, headers=(JSON,))), "GET", "/x")
    assert value(REQUESTS, outcome=outcome) == value(REQUESTS) == 1


def test_record_error_marks_the_current_request(instrument: Start) -> None:
    """A 200 that the application calls a timeout is a failure."""
    instrument()

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        sage_obs.record_error("timeout")
        await answering(200)(scope, receive, send)

    call(_named(app), "GET", "/x")
    assert value(REQUESTS, outcome="server_error") == value(ERRORS, error_type="timeout") == 1


def test_a_stream_has_a_time_to_its_first_byte(instrument: Start) -> None:
    """A streamed answer lasts until its last byte, and its first byte is timed apart."""
    instrument()

    async def app(_scope: Scope, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await send({"type": "http.response.body", "body": b'{"error": 1}', "more_body": True})
        assert value(REQUESTS) == 0
        await send({"type": "http.response.body", "body": b""})
        assert value(REQUESTS, outcome="success") == 1

    assert call(_named(app), "GET", "/s").body == b'{"error": 1}'
    assert value(TIME_TO_FIRST_BYTE, suffix="_count", operation="GET /s") == 1


@pytest.mark.parametrize("how", ["receive", "send"])
def test_a_caller_who_leaves_cancels(instrument: Start, how: str) -> None:
    """A disconnect before the last byte is a cancellation, whether receive or send tells of it."""
    instrument()

    async def waiting(_scope: Scope, receive: Any, _send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def broken_pipe(scope: Scope, receive: Any, _send: Any) -> None:
        async def gone(_event: dict[str, Any]) -> None:
            raise OSError("gone")

        await _named(answering(200))(scope, receive, gone)

    async def main() -> Answer:
        if how == "receive":
            return await serve(_named(waiting), scope_of("GET", "/x"), events=[{"type": "http.disconnect"}])
        return await serve(broken_pipe, scope_of("GET", "/x"))

    if how == "send":
        with pytest.raises(OSError, match="gone"):
            asyncio.run(main())
    else:
        asyncio.run(main())
    assert value(REQUESTS, outcome="cancelled") == value(ERRORS, error_type="cancelled") == 1


def test_ids_come_in_and_go_out(instrument: Start) -> None:
    """A sane request id is kept and returned, a trace goes on, and the application sees both."""
    instrument()
    seen = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        seen.append(sage_obs.current())
        await answering(200)(scope, receive, send)

    answer = call(_named(app), "GET", "/x", x_request_id="mine-1", traceparent=f"00-{TRACE}-{SPAN}-01")
    assert answer.headers["x-request-id"] == seen[0].request_id == "mine-1"
    assert seen[0].trace_id == TRACE
    assert seen[0].span_id not in {SPAN, ""}
    answer = call(_named(app), "GET", "/x", x_request_id="<bad id>")
    assert answer.headers["x-request-id"] == seen[1].request_id
    assert seen[1].request_id.startswith("req-")
    assert sage_obs.current().request_id == ""


def test_a_sampled_request_leaves_an_exemplar(instrument: Start) -> None:
    """The trace the caller sampled is on the bucket of its duration."""
    from prometheus_client import REGISTRY

    instrument(sampling_rate=0.0)
    call(_named(answering(200)), "GET", "/x", traceparent=f"00-{TRACE}-{SPAN}-01")
    call(_named(answering(200)), "GET", "/x")
    exemplars = [sample.exemplar.labels for family in REGISTRY.collect() for sample in family.samples if sample.exemplar]
    assert exemplars == [{"trace_id": TRACE}]


def test_probes_and_scrapes_are_not_counted_and_only_unknown_probes_are_answered(instrument: Start) -> None:
    """The application goes first; where it says 404 the probe is answered; /metrics is its own affair."""
    instrument()
    live = call(_named(answering(404)), "GET", "/health/live")
    assert (live.status, json.loads(live.body)) == (200, {"name": "liveness", "status": "healthy"})
    assert call(_named(answering(404)), "HEAD", "/health/live").body == b""
    assert call(_named(answering(200, b"mine")), "GET", "/health/live").body == b"mine"
    assert call(_named(answering(404, b"none")), "POST", "/health/live").status == 404
    assert call(_named(answering(404, b"none")), "GET", "/metrics").body == b"none"
    assert value(REQUESTS) == 0


def test_one_line_in_the_access_log_per_request(instrument: Start, tmp_path: Path) -> None:
    """The line names method, path and status, and carries ids, duration, operation and outcome."""
    log = tmp_path / "log"
    instrument(log_output=str(log))
    call(_named(answering(200)), "GET", "/health/live")
    call(_named(answering(503)), "GET", "/x", x_request_id="r1", traceparent=f"00-{TRACE}-{SPAN}-00")
    sage_obs.flush()
    lines = [json.loads(text) for text in log.read_text().splitlines()]
    [line] = [line for line in lines if line["logger"] == "sage_obs.access"]
    assert line["message"] == "GET /x 503"
    assert line["duration_ms"] >= 0
    assert (line["request_id"], line["trace_id"], line["outcome"], line["operation"]) == ("r1", TRACE, "server_error", "GET /x")


def test_a_line_logged_after_the_exception_still_has_its_ids(instrument: Start, tmp_path: Path) -> None:
    """The server's own traceback, logged outside the application, can be found by request id."""
    instrument(log_output=str(tmp_path / "log"))

    async def app(_scope: Scope, _receive: Any, _send: Any) -> None:
        raise ValueError("boom")

    async def server() -> None:
        try:
            await serve(_named(app), scope_of("GET", "/x", [("x-request-id", "r7")]))
        except ValueError:
            logging.getLogger("uvicorn.error").exception("Exception in ASGI application")

    asyncio.run(server())
    sage_obs.flush()
    lines = [json.loads(text) for text in (tmp_path / "log").read_text().splitlines()]
    traceback = next(line for line in lines if line["level"] == "error")
    assert traceback["request_id"] == "r7"
    assert traceback["error.type"] == "ValueError"


def test_switched_off_the_middleware_only_passes_on() -> None:
    """Before instrument() and after uninstrument() the application's answer is untouched."""
    sage_obs.uninstrument()
    answer = call(_named(answering(404, b"theirs")), "GET", "/health/live")
    assert (answer.status, answer.body) == (404, b"theirs")
    assert "x-request-id" not in answer.headers


def test_a_failing_operation_function_costs_the_request_nothing(instrument: Start) -> None:
    """The request is served and counted as unmatched, and the error is counted as ours."""
    from sage_obs import testing
    from sage_obs.conventions import INTERNAL_ERRORS

    instrument()
    testing.reraise_internal_errors(on=False)
    app = sage_obs.instrument_app(answering(200), operation=lambda scope: scope["nothing"])
    assert call(app, "GET", "/x").status == 200
    assert value(REQUESTS, operation="unmatched", outcome="success") == 1
    assert value(INTERNAL_ERRORS, component="asgi") == 1


def test_lifespan_and_websockets_pass_through(instrument: Start) -> None:
    """Only HTTP is measured; a finished lifespan startup completes startup."""
    instrument()
    seen: list[str] = []

    async def app(scope: Scope, _receive: Any, send: Any) -> None:
        seen.append(scope["type"])
        if scope["type"] == "lifespan":
            assert board().startup().status == 503
            await send({"type": "lifespan.startup.complete"})

    async def main() -> None:
        async def nothing(_event: Any = None) -> Any:
            return {"type": "lifespan.startup"}

        wrapped = _named(app)
        await wrapped({"type": "websocket", "path": "/ws"}, nothing, nothing)
        await wrapped({"type": "lifespan"}, nothing, nothing)

    asyncio.run(main())
    assert seen == ["websocket", "lifespan"]
    assert board().startup().status == 200
    assert value(REQUESTS) == 0


@pytest.mark.parametrize("fails", [False, True], ids=["answers", "raises"])
def test_a_request_inside_a_request_leaves_the_outer_one_as_it_was(instrument: Start, fails: bool) -> None:  # noqa: FBT001 - two cases
    """A handler that calls another application in its own process keeps its request id, whatever becomes of that call."""
    instrument()
    seen = []

    async def inner(scope: Scope, receive: Any, send: Any) -> None:
        seen.append(sage_obs.current().request_id)
        if fails:
            raise ValueError("inner")
        await answering(200)(scope, receive, send)

    async def outer(scope: Scope, receive: Any, send: Any) -> None:
        with sage_obs.context(tenant="acme"), contextlib.suppress(ValueError):
            await serve(_named(inner), scope_of("GET", "/inner"))
        seen.append(sage_obs.current().request_id)
        await answering(200)(scope, receive, send)

    call(_named(outer), "GET", "/outer", x_request_id="r1")
    assert seen[0] not in {"r1", ""}
    assert seen[1] == "r1"
    assert value(REQUESTS) == 2


@pytest.mark.parametrize("path", ["/next", "/health/live"])
def test_a_pipelined_request_has_nothing_of_its_predecessor(instrument: Start, path: str) -> None:
    """A task that is started as the last byte goes out sees neither the request nor the tenant before it."""
    instrument()
    seen: list[tuple[str, dict[str, str]]] = []
    tasks: list[asyncio.Task[Answer]] = []

    async def following(scope: Scope, receive: Any, send: Any) -> None:
        seen.append((sage_obs.current().request_id, dict(ambient())))
        await answering(200)(scope, receive, send)

    async def first(scope: Scope, receive: Any, send: Any) -> None:
        with sage_obs.context(tenant="acme"):
            await answering(200)(scope, receive, send)

    async def main() -> None:
        async def send(event: dict[str, Any]) -> None:
            if event["type"] == "http.response.body":
                tasks.append(asyncio.create_task(serve(_named(following), scope_of("GET", path))))

        async def receive() -> dict[str, Any]:
            return {"type": "http.request"}

        await _named(first)(scope_of("GET", "/first", [("x-request-id", "r1")]), receive, send)
        await tasks[0]

    asyncio.run(main())
    [(request_id, around)] = seen
    assert around == {}
    assert request_id != "r1"
    assert request_id.startswith("req-") == (path == "/next")


def _by_hand(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run what waits for nothing, with no loop of asyncio's around it, as under trio."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


def test_an_application_on_another_event_loop_than_asyncios_is_served_and_counted(instrument: Start) -> None:
    """Its lifespan, its requests and its probes do not need asyncio's loop; startup is complete all the same."""
    instrument()
    sent: list[str] = []

    async def app(scope: Scope, _receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await send({"type": "lifespan.startup.complete"})
        else:
            await answering(200 if scope["path"] == "/x" else 404)(scope, _receive, send)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(event: dict[str, Any]) -> None:
        sent.append(f"{event['type']} {event.get('status', '')}".strip())

    board().expect_app()
    assert board().startup().status == 503
    _by_hand(_named(app)({"type": "lifespan"}, receive, send))
    assert board().startup().status == 200
    for path in ("/x", "/health/ready"):
        _by_hand(_named(app)(scope_of("GET", path), receive, send))
    assert sent[:2] == ["lifespan.startup.complete", "http.response.start 200"]
    assert "http.response.start 200" in sent[3:]
    assert value(REQUESTS, operation="GET /x", outcome="success") == value(REQUESTS) == 1
