from __future__ import annotations

import functools
import importlib.util
import io
import json
import logging
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest

import sage_obs
from sage_obs.conventions import (
    ERRORS,
    EXPERIENCE,
    INTERNAL_ERRORS,
    REQUEST_DURATION,
    REQUEST_OVERHEAD,
    REQUESTS,
    REQUESTS_IN_FLIGHT,
    TIME_TO_FIRST_BYTE,
)
from sage_obs.errors import SageObsError
from sage_obs.health.board import board
from sage_obs.integrations.asgi import RequestMiddleware
from sage_obs.integrations.interface import interface_of
from sage_obs.integrations.wsgi import WsgiMiddleware
from tests.support.asgi import call as call_asgi
from tests.support.metrics import children, value
from tests.support.wsgi import JSON, Environ, answering, call, environ_of, serve

Start = Callable[..., sage_obs.Handle]
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TEXT = ("Content-Type", "text/plain")


def _named(app: Any) -> Any:
    return sage_obs.instrument_app(app, operation=lambda environ: f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")


def _streaming(*pieces: bytes, headers: Iterable[tuple[str, str]] = (TEXT,), fails: Exception | None = None) -> Any:
    """An application that is a generator: it starts its answer with its first piece."""

    def app(_environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", list(headers))
        yield from pieces
        if fails is not None:
            raise fails

    return app


def test_a_request_is_counted_once_with_everything_bounded_at_zero(instrument: Start) -> None:
    """One request is one in every family, however often the application is wrapped."""
    instrument()
    assert call(_named(_named(answering("200 OK", b"{}"))), "GET", "/x").status == 200
    assert value(REQUESTS, operation="GET /x", outcome="success", protocol="http", agent_id="a1") == value(REQUESTS) == 1
    for family in (REQUEST_DURATION, REQUEST_OVERHEAD):
        assert value(family, suffix="_count", operation="GET /x") == 1
    assert value(EXPERIENCE, outcome="satisfied") == 1
    assert value(TIME_TO_FIRST_BYTE, suffix="_count") == 0
    assert value(REQUESTS_IN_FLIGHT) == 0


def test_what_waits_for_a_model_is_not_overhead(instrument: Start) -> None:
    """The time inside a tool or model call is in the duration and not in the overhead, in the call and in the pieces of the body."""
    import time

    instrument()

    def app(_environ: Environ, start_response: Any) -> Iterator[bytes]:
        with sage_obs.tool("search"):
            time.sleep(0.2)
        start_response("200 OK", [TEXT])
        yield b"a"
        with sage_obs.tool("search"):
            time.sleep(0.2)
        yield b"b"

    call(_named(app), "GET", "/x")
    duration, overhead = (value(family, suffix="_sum", operation="GET /x") for family in (REQUEST_DURATION, REQUEST_OVERHEAD))
    assert duration - overhead >= 0.4


def test_an_exception_counts_and_is_raised_untouched(instrument: Start) -> None:
    """The server sees the very exception, whether the call or a piece of the body raised it."""
    instrument()
    raised = ValueError("mine")

    def app(_environ: Environ, _start_response: Any) -> Any:
        raise raised

    for failing in (app, _streaming(b"a", fails=raised), _streaming(fails=raised)):
        with pytest.raises(ValueError, match="mine") as caught:
            call(_named(failing), "GET", "/x")
        assert caught.value is raised
    assert value(REQUESTS, outcome="server_error") == value(ERRORS, error_type="internal") == value(REQUESTS) == 3
    assert value(REQUESTS_IN_FLIGHT) == 0


def test_an_answer_that_is_never_started_is_a_failure(instrument: Start) -> None:
    """A body without a start is no answer, and what is no body at all is the server's TypeError."""
    instrument()
    call(_named(lambda _environ, _start: []), "GET", "/x")
    with pytest.raises(TypeError, match="not iterable"):
        call(_named(lambda _environ, _start: None), "GET", "/x")
    assert value(REQUESTS, outcome="server_error") == value(REQUESTS) == 2


@pytest.mark.parametrize(
    ("app", "outcome"),
    [
        (answering("200 OK", b'{"jsonrpc": "2.0", "error": {"code": -32603}}'), "server_error"),
        (answering("200 OK", b'{"err', b'or": 1}'), "server_error"),
        (answering("200 OK", b'{"error": null}'), "success"),
        (answering("200 OK", b'{"error": 1}', headers=(TEXT,)), "success"),
        (_streaming(b'{"error": ', b"1}", headers=(JSON,)), "server_error"),
        (answering("404 Not Found"), "client_error"),
        (answering("429 Too Many Requests"), "rejected"),
        (answering("503 Service Unavailable"), "server_error"),
        (answering("204 No Content", headers=()), "success"),
    ],
    ids=["rpc", "pieces", "null", "text", "stream", "404", "429", "503", "204"],
)
def test_an_answer_is_judged_as_an_asgi_one_is(instrument: Start, app: Any, outcome: str) -> None:
    """Status and JSON say how the request ended."""
    instrument()
    call(_named(app), "GET", "/x")
    assert value(REQUESTS, outcome=outcome) == value(REQUESTS) == 1


def test_the_last_start_before_the_first_byte_is_the_answer(instrument: Start) -> None:
    """An application that changes its mind with `exc_info` is judged by what the caller got; the server hears of both."""
    instrument()

    def app(_environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", [JSON])
        start_response("500 Internal Server Error", [TEXT], (ValueError, ValueError(), None))
        return [b"broken"]

    assert call(_named(app), "GET", "/x").status == 500
    assert value(REQUESTS, outcome="server_error") == value(REQUESTS) == 1


def test_a_stream_lasts_until_its_last_byte(instrument: Start) -> None:
    """A generator is counted once it has ended, is timed to its first byte, and sees its request at every step; nobody else does."""
    instrument()
    seen = []

    def app(_environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [TEXT])
        for _ in range(3):
            seen.append(sage_obs.current().request_id)
            yield b"x"

    body = _named(app)(environ_of("GET", "/s", x_request_id="r1"), lambda *_: None)
    iterator = iter(body)
    next(iterator)
    assert value(REQUESTS_IN_FLIGHT) == 1
    assert value(REQUESTS) == 0
    assert sage_obs.current().request_id == ""
    assert b"".join(iterator) == b"xx"
    assert value(REQUESTS, outcome="success") == 1
    body.close()
    assert value(REQUESTS) == 1
    assert seen == ["r1"] * 3
    assert value(TIME_TO_FIRST_BYTE, suffix="_count", operation="GET /s") == 1


@pytest.mark.parametrize("headers", [(TEXT,), (TEXT, ("Content-Length", "2"))], ids=["whole", "sized"])
def test_an_answer_in_memory_is_no_stream(instrument: Start, headers: tuple[tuple[str, str], ...]) -> None:
    """A list, or a body of known length, has no time to its first byte, and the server may still count the pieces of the list."""
    instrument()
    app = answering("200 OK", b"a", b"b", headers=headers) if len(headers) == 1 else _streaming(b"a", b"b", headers=headers)
    answer = call(_named(app), "GET", "/x")
    assert hasattr(answer.result, "__len__") == (len(headers) == 1)
    assert not hasattr(answer.result, "__len__") or len(answer.result) == 2
    assert value(TIME_TO_FIRST_BYTE, suffix="_count") == 0
    assert value(REQUESTS, outcome="success") == 1


@pytest.mark.parametrize("how", ["close", "write"])
def test_a_caller_who_leaves_cancels(instrument: Start, how: str) -> None:
    """A server that stops before the last piece, or cannot write, has lost its caller; the application's body is closed all the same."""
    instrument()
    closed = []

    class Pieces:
        def __iter__(self) -> Iterator[bytes]:
            yield from (b"a", b"b", b"c")

        def close(self) -> None:
            closed.append(sage_obs.current().request_id)

    def streaming(_environ: Environ, start_response: Any) -> Pieces:
        start_response("200 OK", [TEXT])
        return Pieces()

    def writing(_environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", [TEXT])(b"a")
        return []

    def broken(_data: bytes) -> None:
        raise BrokenPipeError("gone")

    if how == "close":
        serve(_named(streaming), environ_of("GET", "/x", x_request_id="r1"), pieces=1)
        assert closed == ["r1"]
    else:
        with pytest.raises(BrokenPipeError):
            _named(writing)(environ_of("GET", "/x"), lambda *_: broken)
    assert value(REQUESTS, outcome="cancelled") == value(ERRORS, error_type="cancelled") == value(REQUESTS) == 1


def test_a_server_that_stops_at_the_length_it_was_told_has_sent_everything(instrument: Start) -> None:
    """PEP 3333 has servers stop there; some do not even close the body. What is raised or left after that changes nothing."""
    instrument()
    cases: tuple[Any, ...] = (
        _streaming(b"ab", b"", headers=(TEXT, ("Content-Length", "2"))),
        _streaming(b"", headers=(TEXT, ("content-length", "0"))),
        _streaming(b"abc", headers=(TEXT, ("Content-Length", "2"))),
    )
    for number, app in enumerate(cases, start=1):
        body = _named(app)(environ_of("GET", "/x"), lambda *_: None)
        next(iter(body))
        assert value(REQUESTS, outcome="success") == value(REQUESTS) == number
        body.close()
    with pytest.raises(ValueError, match="late"):
        call(_named(_streaming(b"ab", headers=(TEXT, ("Content-Length", "2")), fails=ValueError("late"))), "GET", "/x")
    assert value(REQUESTS, outcome="success") == value(REQUESTS) == 4
    assert value(REQUESTS_IN_FLIGHT) == 0


def test_what_is_written_instead_of_returned_counts_as_the_body(instrument: Start) -> None:
    """The old `write` streams, and JSON in it is read."""
    instrument()

    def app(_environ: Environ, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [JSON])
        write(b'{"error": ')
        write(b"1}")
        return []

    assert call(_named(app), "GET", "/x").body == b'{"error": 1}'
    assert value(REQUESTS, outcome="server_error") == 1


def test_a_file_stays_the_servers_own(instrument: Start) -> None:
    """What the server would send with sendfile reaches it as the application returned it."""
    instrument()
    file = FileWrapper(io.BytesIO(b"content"))

    def app(_environ: Environ, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        return file

    assert call(_named(app), "GET", "/x").result is file
    assert value(REQUESTS, outcome="success") == 1
    assert value(REQUESTS_IN_FLIGHT) == 0


def test_ids_come_in_and_go_out(instrument: Start) -> None:
    """A sane request id is kept and returned, a trace goes on, and the application sees both; an id of its own stays."""
    instrument()
    seen = []

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        seen.append(sage_obs.current())
        return answering("200 OK")(environ, start_response)  # type: ignore[no-any-return]

    answer = call(_named(app), "GET", "/x", x_request_id="mine-1", traceparent=f"00-{TRACE}-{SPAN}-01")
    assert answer.headers["x-request-id"] == seen[0].request_id == "mine-1"
    assert seen[0].trace_id == TRACE
    assert call(_named(app), "GET", "/x", x_request_id="<bad id>").headers["x-request-id"] == seen[1].request_id
    assert seen[1].request_id.startswith("req-")
    assert sage_obs.current().request_id == ""
    assert call(_named(answering("200 OK", headers=[("X-Request-ID", "own")])), "GET", "/x").headers["x-request-id"] == "own"


def test_probes_and_scrapes_are_not_counted_and_only_unknown_probes_are_answered(instrument: Start) -> None:
    """The application goes first; where it says 404, however it starts its answer, the probe is answered; /metrics is its own affair."""
    instrument()
    closed = []

    class Missing:
        def __iter__(self) -> Iterator[bytes]:
            yield b"none"

        def close(self) -> None:
            closed.append(True)

    def missing(_environ: Environ, start_response: Any) -> Missing:
        start_response("404 Not Found", [TEXT])(b"written")
        return Missing()

    def late(_environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("404 Not Found", [TEXT])
        yield b"none"

    for app in (missing, late):
        live = call(_named(app), "GET", "/health/live")
        assert (live.status, json.loads(live.body)) == (200, {"name": "liveness", "status": "healthy"})
        assert live.headers["cache-control"] == "no-store"
    assert closed == [True]
    assert call(_named(late), "HEAD", "/health/live").body == b""
    assert call(_named(answering("200 OK", b"mine")), "GET", "/health/live").body == b"mine"
    assert call(_named(_streaming(b"mi", b"ne")), "GET", "/health/live").body == b"mine"
    assert call(_named(answering("404 Not Found", b"none")), "POST", "/health/live").status == 404
    assert call(_named(answering("404 Not Found", b"none")), "GET", "/metrics").body == b"none"
    assert value(REQUESTS) == 0


def test_one_line_in_the_access_log_per_request(instrument: Start, tmp_path: Path) -> None:
    """The line names method, whole path and status, and carries ids, duration, operation and outcome."""
    log = tmp_path / "log"
    instrument(log_output=str(log))
    call(_named(answering("200 OK")), "GET", "/health/live")
    environ = environ_of("GET", "/\xc3\xa9", x_request_id="r1", traceparent=f"00-{TRACE}-{SPAN}-00") | {"SCRIPT_NAME": "/base"}
    serve(sage_obs.instrument_app(answering("503 Service Unavailable")), environ)
    sage_obs.flush()
    lines = [json.loads(text) for text in log.read_text().splitlines()]
    [line] = [line for line in lines if line["logger"] == "sage_obs.access"]
    assert line["message"] == "GET /base/é 503"
    assert line["duration_ms"] >= 0
    assert (line["request_id"], line["trace_id"], line["outcome"], line["operation"]) == ("r1", TRACE, "server_error", "unmatched")


def test_a_line_logged_after_the_exception_still_has_its_ids_and_the_next_request_has_not(instrument: Start, tmp_path: Path) -> None:
    """A thread serves one request after the other: the server's traceback is found by request id, what comes next starts anew."""
    instrument(log_output=str(tmp_path / "log"))
    with pytest.raises(ValueError, match="boom"):
        call(_named(_streaming(b"a", fails=ValueError("boom"))), "GET", "/x", x_request_id="r7")
    logging.getLogger("gunicorn.error").error("Error handling request")
    call(_named(answering("404 Not Found")), "GET", "/metrics")
    logging.getLogger("gunicorn.error").error("between")
    call(_named(answering("200 OK")), "GET", "/x", x_request_id="r8")
    logging.getLogger("gunicorn.error").error("after")
    sage_obs.flush()
    lines = {line["message"]: line for line in map(json.loads, (tmp_path / "log").read_text().splitlines())}
    assert lines["Error handling request"]["request_id"] == "r7"
    assert "request_id" not in lines["between"]
    assert "request_id" not in lines["after"]


def test_a_request_inside_a_request_leaves_the_outer_one_as_it_was(instrument: Start) -> None:
    """A handler that calls another application in its own process keeps its request id."""
    instrument()
    seen = []

    def outer(environ: Environ, start_response: Any) -> list[bytes]:
        call(_named(answering("200 OK")), "GET", "/inner")
        seen.append(sage_obs.current().request_id)
        return answering("200 OK")(environ, start_response)  # type: ignore[no-any-return]

    call(_named(outer), "GET", "/outer", x_request_id="r1")
    assert seen == ["r1"]
    assert value(REQUESTS) == 2


def test_switched_off_the_middleware_only_passes_on() -> None:
    """Before instrument() and after uninstrument() the application's answer, and the environ it sees, are untouched."""
    sage_obs.uninstrument()
    environ = environ_of("GET", "/health/live")
    before = dict(environ)
    answer = serve(_named(answering("404 Not Found", b"theirs")), environ)
    assert (answer.status, answer.body, answer.result) == (404, b"theirs", [b"theirs"])
    assert "x-request-id" not in answer.headers
    assert environ == before


def test_a_failing_operation_function_costs_the_request_nothing(instrument: Start) -> None:
    """The request is served and counted as unmatched, and the error as one of this interface."""
    from sage_obs import testing

    instrument()
    testing.reraise_internal_errors(on=False)
    app = sage_obs.instrument_app(answering("200 OK"), operation=lambda environ: environ["nothing"])
    assert call(app, "GET", "/x").status == 200
    assert value(REQUESTS, operation="unmatched", outcome="success") == 1
    assert value(INTERNAL_ERRORS, component="wsgi") == value(INTERNAL_ERRORS) == 1


def test_the_middleware_keeps_to_the_wsgi_specification(instrument: Start) -> None:
    """The standard library's validator on both sides has nothing to say, and the first request completes startup."""
    instrument()
    sage_obs.instrument_app(answering("200 OK"))
    assert board().startup().status == 503
    app = validator(sage_obs.instrument_app(validator(_streaming(b"a", b"b")), interface="wsgi"))
    environ = environ_of("GET", "/x")
    del environ["wsgi.file_wrapper"]
    body = app(environ, lambda _status, _headers, *_exc_info: lambda _data: None)
    assert b"".join(body) == b"ab"
    body.close()  # type: ignore[attr-defined]
    assert board().startup().status == 200
    assert value(REQUESTS, outcome="success") == 1


class _Asgi:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """An ASGI application that is an object."""


class _Wsgi:
    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        """Answer nothing."""
        del environ, start_response
        return []


@pytest.mark.parametrize(
    ("app", "interface"),
    [
        (_Asgi(), "asgi"),
        (_Asgi().__call__, "asgi"),
        (lambda scope, receive, send: None, "asgi"),  # noqa: ARG005 - a signature
        (lambda *args: None, "asgi"),  # noqa: ARG005 - a signature
        (functools.partial(_Asgi.__call__, _Asgi()), "asgi"),
        (_Wsgi(), "wsgi"),
        (_Wsgi().__call__, "wsgi"),
        (functools.partial(_Wsgi.__call__, _Wsgi()), "wsgi"),
        (answering("200 OK"), "wsgi"),
        (object(), "asgi"),
    ],
)
def test_the_kind_of_an_application_shows_in_its_signature(app: Any, interface: str) -> None:
    """Two arguments and no coroutine is WSGI; the rest is ASGI, unless the caller says it."""
    assert interface_of(app) == interface
    assert isinstance(sage_obs.instrument_app(app), WsgiMiddleware) == (interface == "wsgi")
    assert isinstance(sage_obs.instrument_app(app, interface="wsgi"), WsgiMiddleware)
    assert isinstance(sage_obs.instrument_app(app, interface="asgi"), RequestMiddleware)


def test_an_application_of_a_known_framework_need_not_be_wrapped(instrument: Start) -> None:
    """`instrument(app=...)` takes a Flask application as it takes a FastAPI one, and refuses what it cannot reach, routed or not."""
    from fastapi import FastAPI
    from flask import Flask

    class Routed:
        routes = ()

    instrument(app=Flask("shop"))
    instrument(app=FastAPI())
    for app in (answering("200 OK"), Routed()):
        with pytest.raises(SageObsError, match="instrument_app"):
            instrument("other", app=app)


def test_a_route_is_found_behind_middlewares_that_copy_the_environ(instrument: Start) -> None:
    """A wrapped stack around a Flask application is named by Flask's rule, and counts once."""
    from flask import Flask

    instrument(libraries=["flask"])
    flask = Flask("shop")
    flask.add_url_rule("/leaf/<x>", view_func=lambda x: x, endpoint="leaf")

    def copying(environ: Environ, start_response: Any) -> Any:
        return flask(dict(environ), start_response)

    assert call(sage_obs.instrument_app(copying), "GET", "/leaf/1").body == b"1"
    assert value(REQUESTS, operation="GET /leaf/<x>", outcome="success") == value(REQUESTS) == 1


def test_a_rule_is_known_even_where_the_exception_goes_on(instrument: Start) -> None:
    """A Flask application in testing mode raises instead of answering 500."""
    from flask import Flask

    instrument(libraries=["flask"])
    flask = Flask("shop")
    flask.testing = True
    flask.add_url_rule("/broken/<x>", view_func=lambda x: str(1 // 0) + x, endpoint="broken")
    with pytest.raises(ZeroDivisionError):
        call(flask, "GET", "/broken/1")
    assert value(REQUESTS, operation="GET /broken/<x>", outcome="server_error") == value(REQUESTS) == 1


def test_a_websocket_is_left_alone(instrument: Start) -> None:
    """What an application does on the server's socket is no request that ends with an answer."""
    instrument()
    assert "x-request-id" not in call(_named(answering("200 OK")), "GET", "/ws", upgrade="WebSocket").headers
    assert value(REQUESTS) == 0
    call(_named(answering("200 OK")), "GET", "/x", upgrade="h2c")
    assert value(REQUESTS) == 1


def _with_asgiref(app: Any) -> Any:
    from asgiref.wsgi import WsgiToAsgi

    return WsgiToAsgi(app)  # type: ignore[no-untyped-call]


def _with_starlette(app: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and in use
        module = importlib.import_module("starlette.middleware.wsgi")
    return module.WSGIMiddleware(app)


BRIDGES = [_with_asgiref, *([_with_starlette] if importlib.util.find_spec("starlette.middleware.wsgi") else [])]


@pytest.mark.parametrize("bridge", BRIDGES)
def test_a_wsgi_application_inside_an_asgi_one_is_counted_once(instrument: Start, bridge: Callable[[Any], Any]) -> None:
    """A Flask application mounted in a Starlette one is part of the request that is measured already; alone it is measured itself."""
    from flask import Flask
    from starlette.applications import Starlette
    from starlette.routing import Mount

    flask = Flask("inner")
    flask.add_url_rule("/leaf/<x>", view_func=lambda x: x, endpoint="leaf")
    instrument(libraries=["starlette", "flask"])
    assert call_asgi(Starlette(routes=[Mount("/old", bridge(flask))]), "GET", "/old/leaf/1").body == b"1"
    assert [labels["operation"] for labels in children(REQUESTS) if labels["outcome"] == "success"] == ["GET /old/{path}"]
    assert value(REQUESTS) == 1
    assert call_asgi(bridge(flask), "GET", "/leaf/1").body == b"1"
    assert value(REQUESTS, operation="GET /leaf/<x>", outcome="success") == 1
    assert value(REQUESTS) == 2


def test_threads_that_serve_at_once_lose_no_request(instrument: Start) -> None:
    """Every request of every thread is counted, each with its own id, and none is left in flight."""
    instrument(log_output="/dev/null")
    seen: list[bool] = []

    def app(environ: Environ, start_response: Any) -> Iterator[bytes]:
        for _ in range(2):
            seen.append(sage_obs.current().request_id == environ["HTTP_X_REQUEST_ID"])
            start_response("200 OK", [TEXT])
            yield b"x"

    def work(thread: int) -> None:
        for number in range(100):
            call(_named(app), "GET", "/x", x_request_id=f"r{thread}-{number}")

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(seen) == 1600
    assert all(seen)
    assert value(REQUESTS, outcome="success") == value(REQUESTS) == 800
    assert value(REQUESTS_IN_FLIGHT) == 0
