from __future__ import annotations

import asyncio
import functools
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

import sage_obs
from sage_obs import testing
from sage_obs.conventions import (
    ERRORS,
    EXPERIENCE,
    REQUEST_DURATION,
    REQUEST_OVERHEAD,
    REQUESTS,
    REQUESTS_IN_FLIGHT,
    TIME_TO_FIRST_BYTE,
    ErrorType,
    Outcome,
)
from sage_obs.health.board import board
from tests.support.metrics import value
from tests.support.otlp import attributes, receiver
from tests.support.services import wait_until

TRACE = "0af7651916cd43dd8448eb211c80319c"
METADATA = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"), ("x-request-id", "order-7"))
Instrument = Callable[..., sage_obs.Handle]
CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
waiting = threading.Event()


def _act(request: bytes, context: Any) -> Any:
    """What a request asks for; a returned coroutine is to be awaited."""
    asked, _, detail = request.decode().partition(" ")
    if asked == "set":
        context.set_code(grpc.StatusCode[detail])
    elif asked == "raise":
        raise {"timeout": TimeoutError, "value": ValueError}[detail]("hunter2")
    elif asked == "declare":
        sage_obs.record_error(detail)
    elif asked == "who":
        return sage_obs.current().request_id.encode()
    elif asked == "unsendable":
        return 7
    return b"done"


def _read(data: bytes) -> bytes:
    if data == b"unreadable":
        raise ValueError(data)
    return data


def _write(message: Any) -> bytes:
    return bytes(memoryview(message))


class Threads:
    """Handlers for the server with threads."""

    def unary(self, request: bytes, context: Any) -> Any:
        """One request, one response."""
        if request.startswith(b"abort"):
            context.abort(grpc.StatusCode[request.decode().partition(" ")[2]], "hunter2")
        if request == b"wait":
            gone = threading.Event()
            context.add_callback(gone.set)
            waiting.set()
            gone.wait(10)
        return _act(request, context)

    def stream(self, request: bytes, context: Any) -> Iterator[Any]:
        """One request, several responses."""
        for number in range(100_000 if request == b"endless" else 3):
            waiting.set()
            yield str(number).encode()
        yield _act(request, context)

    def gather(self, requests: Iterator[bytes], context: Any) -> Any:
        """Several requests, one response."""
        return _act(b"".join(requests), context)

    def chat(self, requests: Iterator[bytes], context: Any) -> Iterator[Any]:
        """A response to each request."""
        for request in requests:
            yield _act(request, context)


class Tasks:
    """The same for asyncio's."""

    async def unary(self, request: bytes, context: Any) -> Any:
        """One request, one response."""
        if request.startswith(b"abort"):
            await context.abort(grpc.StatusCode[request.decode().partition(" ")[2]], "hunter2")
        if request == b"wait":
            waiting.set()
            await asyncio.sleep(10)
        return _act(request, context)

    async def stream(self, request: bytes, context: Any) -> AsyncIterator[Any]:
        """One request, several responses."""
        for number in range(100_000 if request == b"endless" else 3):
            waiting.set()
            yield str(number).encode()
        yield _act(request, context)

    async def gather(self, requests: AsyncIterator[bytes], context: Any) -> Any:
        """Several requests, one response."""
        return _act(b"".join([request async for request in requests]), context)

    async def chat(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
        """A response to each request."""
        async for request in requests:
            yield _act(request, context)

    async def written(self, request: bytes, context: Any) -> None:
        """Responses written to the context."""
        await context.write(b"0")
        await context.write(_act(request, context))


def _handlers(servicer: Any) -> grpc.GenericRpcHandler:
    kinds = {"unary": "unary_unary", "stream": "unary_stream", "gather": "stream_unary", "chat": "stream_stream", "written": "unary_stream"}
    made = {
        name.capitalize(): getattr(grpc, f"{kind}_rpc_method_handler")(getattr(servicer, name), _read, _write)
        for name, kind in kinds.items()
        if hasattr(servicer, name)
    }
    return grpc.method_handlers_generic_handler("demo.Greeter", made)


@contextmanager
def _threads(**options: Any) -> Iterator[grpc.Channel]:
    server = grpc.server(ThreadPoolExecutor(4), handlers=[_handlers(Threads())], **options)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        server.stop(0).wait(10)


@contextmanager
def _tasks(**options: Any) -> Iterator[grpc.Channel]:
    """An asyncio server on an event loop of its own, and a channel to it."""
    loop, port = asyncio.new_event_loop(), 0
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[Any, int]:
        server = grpc.aio.server(handlers=[_handlers(Tasks())], **options)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(0), loop).result(10)
        del server
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture(params=[_threads, _tasks], ids=["threads", "asyncio"])
def serve(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """A server of one kind or the other."""
    waiting.clear()
    found: Callable[..., Any] = request.param
    return found


def _unary(channel: grpc.Channel, request: bytes, method: str = "Unary", **arguments: Any) -> bytes:
    return bytes(channel.unary_unary(f"/demo.Greeter/{method}")(request, timeout=10, **arguments))


def _ending(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """The code and the details a caller gets."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def _code(call: Callable[[], object]) -> grpc.StatusCode:
    return _ending(call)[0]


def _counted(wanted: int, **labels: str) -> None:
    """A request is counted after its last byte, which the caller may have before."""
    wait_until(lambda: value(REQUESTS, **labels) == wanted, says=lambda: f"{labels}: {value(REQUESTS, **labels)} of {value(REQUESTS)}")


def test_all_four_kinds_of_method_are_requests(instrument: Instrument, serve: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Each RPC is one in every family, named by its method; streams have a first byte; the line has status and ids."""
    instrument(libraries=["grpc"])
    assert board().startup().status == 200
    with serve() as channel:
        assert board().startup().status == 200, "a server that has started is a service that has"
        assert _unary(channel, b"who", metadata=METADATA) == b"order-7"
        assert list(channel.unary_stream("/demo.Greeter/Stream")(b"hello")) == [b"0", b"1", b"2", b"done"]
        assert channel.stream_unary("/demo.Greeter/Gather")(iter([b"hel", b"lo"])) == b"done"
        assert all(one.startswith(b"req-") for one in channel.stream_stream("/demo.Greeter/Chat")(iter([b"who", b"who"])))
        for method in ("Unary", "Stream", "Gather", "Chat"):
            operation = f"/demo.Greeter/{method}"
            _counted(1, operation=operation, protocol="grpc", outcome="success", agent_id="a1")
            for family in (REQUEST_DURATION, REQUEST_OVERHEAD):
                assert value(family, suffix="_count", operation=operation) == 1
            assert value(TIME_TO_FIRST_BYTE, suffix="_count", operation=operation) == (method in {"Stream", "Chat"})
        assert value(EXPERIENCE, outcome="satisfied") == value(REQUESTS) == 4
        assert value(REQUESTS_IN_FLIGHT) == 0
    assert sage_obs.flush(5)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "sage_obs.access" in line]
    first = next(line for line in lines if line["operation"] == "/demo.Greeter/Unary")
    assert first["message"] == "grpc /demo.Greeter/Unary OK"
    assert (first["request_id"], first["trace_id"]) == ("order-7", TRACE)


def test_the_caller_learns_the_request_s_id(instrument: Instrument, serve: Any) -> None:
    """It stands in the trailing metadata."""
    instrument(libraries=["grpc"])
    with serve() as channel:
        _, call = channel.unary_unary("/demo.Greeter/Unary").with_call(b"hello", metadata=METADATA)
        assert dict(call.trailing_metadata())["x-request-id"] == "order-7"


OUTCOMES = {
    "CANCELLED": (Outcome.CANCELLED, ErrorType.CANCELLED),
    "INVALID_ARGUMENT": (Outcome.CLIENT_ERROR, ErrorType.INVALID_REQUEST),
    "NOT_FOUND": (Outcome.CLIENT_ERROR, ErrorType.INVALID_REQUEST),
    "ALREADY_EXISTS": (Outcome.CLIENT_ERROR, ErrorType.INVALID_REQUEST),
    "FAILED_PRECONDITION": (Outcome.CLIENT_ERROR, ErrorType.INVALID_REQUEST),
    "ABORTED": (Outcome.CLIENT_ERROR, ErrorType.INVALID_REQUEST),
    "OUT_OF_RANGE": (Outcome.CLIENT_ERROR, ErrorType.INVALID_REQUEST),
    "UNAUTHENTICATED": (Outcome.CLIENT_ERROR, ErrorType.AUTH),
    "PERMISSION_DENIED": (Outcome.CLIENT_ERROR, ErrorType.AUTH),
    "RESOURCE_EXHAUSTED": (Outcome.REJECTED, ErrorType.RATE_LIMITED),
    "DEADLINE_EXCEEDED": (Outcome.SERVER_ERROR, ErrorType.TIMEOUT),
    "UNAVAILABLE": (Outcome.SERVER_ERROR, ErrorType.UNAVAILABLE),
    "UNKNOWN": (Outcome.SERVER_ERROR, ErrorType.SERVER_ERROR),
    "INTERNAL": (Outcome.SERVER_ERROR, ErrorType.SERVER_ERROR),
    "UNIMPLEMENTED": (Outcome.SERVER_ERROR, ErrorType.SERVER_ERROR),
    "DATA_LOSS": (Outcome.SERVER_ERROR, ErrorType.SERVER_ERROR),
}


@pytest.mark.parametrize("how", ["abort", "set"])
def test_every_status_code_has_an_outcome_and_an_error_type(instrument: Instrument, serve: Any, how: str) -> None:
    """Aborted with or set and returned: the caller gets the code, and it counts as the table says."""
    instrument(libraries=["grpc"])
    assert {code.name for code in CODES} == set(OUTCOMES)
    with serve() as channel:
        for number, code in enumerate(CODES, 1):
            outcome, error_type = OUTCOMES[code.name]
            before = value(REQUESTS, outcome=outcome), value(ERRORS, error_type=error_type)
            assert _code(lambda: _unary(channel, f"{how} {code.name}".encode())) is code  # noqa: B023 - it is called here
            _counted(number)
            assert (value(REQUESTS, outcome=outcome), value(ERRORS, error_type=error_type)) == (before[0] + 1, before[1] + 1), code


FAILURES = {
    b"raise value": ("server_error", "internal"),
    b"raise timeout": ("server_error", "timeout"),
    b"unsendable": ("server_error", "server_error"),
    b"declare rate_limited": ("rejected", "rate_limited"),
    b"declare tool_error": ("server_error", "tool_error"),
}


@pytest.mark.parametrize("method", ["Unary", "Stream"])
def test_failures_of_handlers_count_and_their_callers_get_what_they_get_without_the_layer(
    instrument: Instrument, serve: Any, method: str
) -> None:
    """What a handler raises, declares, or returns though it is no message, is told apart; code and details are the server's own."""

    def ask(channel: grpc.Channel) -> list[tuple[grpc.StatusCode, str]]:
        calls = [functools.partial(_unary if method == "Unary" else _whole, channel, asked) for asked in FAILURES]
        return [_ending(call) for call in calls]

    with serve() as channel:
        plain = ask(channel)
    instrument(libraries=["grpc"])
    with serve() as channel:
        assert ask(channel) == plain
        _counted(len(FAILURES), operation=f"/demo.Greeter/{method}")
        for outcome in {outcome for outcome, _ in FAILURES.values()}:
            assert value(REQUESTS, outcome=outcome) == [found for found, _ in FAILURES.values()].count(outcome), outcome
        assert all(value(ERRORS, error_type=error_type) == 1 for _, error_type in FAILURES.values())


def _whole(channel: grpc.Channel, request: bytes) -> list[bytes]:
    return list(_stream(channel, request))


def _stream(channel: grpc.Channel, request: bytes, **arguments: Any) -> Any:
    return channel.unary_stream("/demo.Greeter/Stream")(request, timeout=10, **arguments)


def test_what_gets_no_further_than_the_server_is_the_caller_s_error(instrument: Instrument, serve: Any) -> None:
    """Methods that a caller makes up are one operation; a request that cannot be read counts for its method; probes do not count."""
    instrument(libraries=["grpc"])
    with serve() as channel:
        assert _code(lambda: _unary(channel, b"", "Made" * 20)) is grpc.StatusCode.UNIMPLEMENTED
        assert _code(lambda: channel.unary_unary("/grpc.health.v1.Health/Check")(b"")) is grpc.StatusCode.UNIMPLEMENTED
        _counted(1, operation="unmatched", outcome="client_error", protocol="grpc")
        assert _code(lambda: _unary(channel, b"unreadable")) is not grpc.StatusCode.OK
        _counted(1, operation="/demo.Greeter/Unary", outcome="client_error")
        assert value(REQUESTS) == 2
        assert value(REQUESTS_IN_FLIGHT) == 0


def test_what_exceeds_a_server_s_limit_is_rejected(instrument: Instrument) -> None:
    """It never comes to a handler, and counts for its method."""
    instrument(libraries=["grpc"])
    waiting.clear()
    with _threads(maximum_concurrent_rpcs=1) as channel:
        future = channel.unary_unary("/demo.Greeter/Unary").future(b"wait")
        assert waiting.wait(10)
        assert _code(lambda: _unary(channel, b"hello")) is grpc.StatusCode.RESOURCE_EXHAUSTED
        _counted(1, operation="/demo.Greeter/Unary", outcome="rejected")
        assert value(ERRORS, error_type="queue_full") == 1
        future.cancel()
        _counted(1, outcome="cancelled")


@pytest.mark.parametrize("asked", ["unary", "stream"])
def test_a_caller_who_leaves_cancels_and_one_whose_deadline_passes_was_kept_waiting(instrument: Instrument, serve: Any, asked: str) -> None:
    """Both end the RPC in the middle, and count once."""
    instrument(libraries=["grpc"])
    with serve() as channel:
        future = channel.unary_unary("/demo.Greeter/Unary").future(b"wait") if asked == "unary" else _stream(channel, b"endless")
        assert waiting.wait(10)
        future.cancel()
        _counted(1, outcome="cancelled")
        assert value(ERRORS, error_type="cancelled") == 1
        if asked == "unary":
            code = _code(lambda: channel.unary_unary("/demo.Greeter/Unary")(b"wait", timeout=0.2))
            assert code is grpc.StatusCode.DEADLINE_EXCEEDED
            _counted(1, outcome="server_error")
            assert value(ERRORS, error_type="timeout") == 1
        assert value(REQUESTS_IN_FLIGHT) == 0


def test_asyncio_s_handlers_may_write_to_their_context_or_be_plain_functions(instrument: Instrument) -> None:
    """A coroutine that writes is a stream, and functions that asyncio's server runs in threads are measured as they are."""
    instrument(libraries=["grpc"])
    with _tasks() as channel:
        assert list(channel.unary_stream("/demo.Greeter/Written")(b"hello")) == [b"0", b"done"]
        _counted(1, operation="/demo.Greeter/Written", outcome="success")
        assert value(TIME_TO_FIRST_BYTE, suffix="_count") == 1

    async def plain() -> tuple[bytes, list[bytes]]:
        server = grpc.aio.server(ThreadPoolExecutor(2), handlers=[_handlers(Threads())])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            found = await channel.unary_unary("/demo.Greeter/Unary")(b"who", metadata=METADATA)
            streamed = [message async for message in channel.unary_stream("/demo.Greeter/Stream")(b"hello")]
        await server.stop(0)
        return found, streamed

    assert asyncio.run(plain()) == (b"order-7", [b"0", b"1", b"2", b"done"])
    _counted(1, operation="/demo.Greeter/Unary", outcome="success")
    _counted(1, operation="/demo.Greeter/Stream", outcome="success")


def test_the_trace_goes_on_from_a_caller_through_two_services(instrument: Instrument, serve: Any) -> None:
    """The server's span is the caller's child, and what it calls, whole or streamed, sync or async, is in the same trace."""
    with receiver() as received:
        instrument(traces_endpoint=received.url, sampling_rate=0.0, libraries=["grpc"])
        with serve() as channel, _threads() as other:
            target = other

            def relay(request: bytes, context: Any) -> bytes:
                del context
                list(_stream(target, b"hello"))
                target.stream_unary("/demo.Greeter/Gather")(iter([b"x"]), 10, [("x-mine", "1")])
                return _unary(target, request)

            Threads.relay = relay  # type: ignore[attr-defined]
            server = grpc.server(ThreadPoolExecutor(2))
            handler = grpc.unary_unary_rpc_method_handler(relay)
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("demo.Relay", {"Relay": handler}),))
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            with grpc.insecure_channel(f"127.0.0.1:{port}") as entrance:
                assert entrance.unary_unary("/demo.Relay/Relay")(b"hello", metadata=METADATA) == b"done"
            server.stop(0).wait(10)
            _unary(channel, b"hello")
        spans = {span.name: span for span in received.wait(4)}
    root = spans["/demo.Relay/Relay"]
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    assert root.parent_span_id.hex() == "b7ad6b7169203331"
    inner = [spans[f"/demo.Greeter/{name}"] for name in ("Unary", "Stream", "Gather")]
    assert all(span.parent_span_id == root.span_id for span in inner)
    said = attributes(root)
    assert (said["rpc.system"], said["rpc.service"], said["rpc.method"]) == ("grpc", "demo.Relay", "Relay")
    assert said["rpc.response.status_code"] == "OK"


def test_asyncio_s_clients_carry_the_trace_on_too(instrument: Instrument) -> None:
    """All four kinds of stub, whatever their metadata is; what the application has put there stays, and nothing is put in its objects."""
    instrument(libraries=["grpc"])
    seen: list[dict[str, Any]] = []

    class Watching(grpc.aio.ServerInterceptor):  # type: ignore[misc]
        async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
            seen.append(dict(handler_call_details.invocation_metadata))
            return await continuation(handler_call_details)

    async def talk() -> None:
        server = grpc.aio.server(None, [_handlers(Tasks())], [Watching()])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            given = grpc.aio.Metadata(("x-mine", "1"))
            await channel.unary_unary("/demo.Greeter/Unary")(b"", metadata=given)
            assert len(given) == 1
            assert [one async for one in channel.unary_stream("/demo.Greeter/Stream")(b"")]
            await channel.stream_unary("/demo.Greeter/Gather")(iter([b""]), metadata=(("x-mine", "1"),))
            assert [one async for one in channel.stream_stream("/demo.Greeter/Chat")(iter([b""]), metadata=METADATA)]
        await server.stop(0)

    from sage_obs.genai.requests import recorder

    active = recorder()
    assert active is not None
    invocation = active.begin(name="x")
    try:
        asyncio.run(talk())
    finally:
        invocation.leave()
    ours = invocation.request.trace_id
    assert [entry["traceparent"][3:35] for entry in seen] == [ours, ours, ours, TRACE]
    assert [entry.get("x-mine") for entry in seen] == ["1", None, "1", None]


def test_the_application_s_interceptors_stay_and_a_server_goes_on_when_the_layer_goes(instrument: Instrument, serve: Any) -> None:
    """Given by position or by name, they are called; afterwards nothing is measured, also where the layer comes back without it."""
    instrument(libraries=["grpc"])
    original = grpc.server
    with serve(interceptors=[]) as channel:
        assert _unary(channel, b"hello") == b"done"
        _counted(1)
        sage_obs.uninstrument()
        assert grpc.server is not original
        _, call = channel.unary_unary("/demo.Greeter/Unary").with_call(b"who", metadata=METADATA)
        assert "x-request-id" not in dict(call.trailing_metadata())
        instrument(disable=["grpc"])
        assert _unary(channel, b"hello") == b"done"
        instrument()
        assert _unary(channel, b"hello") == b"done"
        _counted(1)


def test_telemetry_that_fails_does_not_fail_the_rpc(instrument: Instrument, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a request cannot be begun, the RPC is served and not measured."""
    from sage_obs.genai.requests import Recorder

    instrument(libraries=["grpc"])
    testing.reraise_internal_errors(on=False)

    def begin(*_: Any, **__: Any) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(Recorder, "begin", begin)
    with serve() as channel:
        assert _unary(channel, b"hello") == b"done"
        assert len(list(_stream(channel, b"hello"))) == 4
        assert value(REQUESTS) == 0
