from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psycopg
import pytest
import redis
import redis.asyncio
import sqlalchemy
import sqlalchemy.ext.asyncio
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from psycopg import sql
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import sage_obs
from sage_obs import testing
from sage_obs.tracing.active import tracing
from tests.support.databases import postgres, redis_server
from tests.support.otlp import Receiver, attributes, receiver
from tests.support.ports import free_port

CLIENTS = ("psycopg", "asyncpg", "sqlalchemy", "redis")
TRACE = "0af7651916cd43dd8448eb211c80319c"
Instrument = Callable[..., sage_obs.Handle]


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The address of a PostgreSQL."""
    with postgres() as url:
        yield url


@pytest.fixture(scope="module")
def cache() -> Iterator[str]:
    """The address of a Redis."""
    with redis_server() as url:
        yield url


@contextmanager
def _traced(instrument: Instrument, **arguments: Any) -> Iterator[Receiver]:
    """The layer on, with every span received."""
    with receiver() as received:
        instrument(traces_endpoint=received.url, sampling_rate=1.0, **arguments)
        yield received
        sage_obs.uninstrument()


def _request(work: Callable[[], Awaitable[None]], *, sampled: bool = True) -> None:
    """Have a service do some work in one request, whose caller has decided about the trace."""

    async def endpoint(_: Any) -> PlainTextResponse:
        await work()
        return PlainTextResponse("done")

    async def ask() -> httpx.Response:
        app = Starlette(routes=[Route("/work", endpoint)])
        headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-0{int(sampled)}"}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
            return await client.get("/work", headers=headers)

    assert asyncio.run(ask()).status_code == 200


def _children(received: Receiver) -> list[Span]:
    """The spans under the request's, in order; each is its child and of its trace."""
    assert sage_obs.flush(5)
    request = next(span for span in received.spans if span.kind == Span.SPAN_KIND_SERVER)
    found = [span for span in received.spans if span is not request]
    assert all(span.parent_span_id == request.span_id and span.trace_id == bytes.fromhex(TRACE) for span in found)
    assert all(span.kind == Span.SPAN_KIND_CLIENT for span in found)
    return sorted(found, key=lambda span: span.start_time_unix_nano)


def _said(spans: list[Span]) -> list[str]:
    return [str(attributes(span)["db.statement"]) for span in spans if "db.statement" in attributes(span)]


async def _with_psycopg(url: str) -> None:
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT %s::int + 1", (41,)).fetchone() == (42,)
    async with await psycopg.AsyncConnection.connect(url) as connection_:
        await connection_.execute("SELECT 'hunter2' AS password, 7")
        await connection_.execute(sql.SQL("SELECT {} AS {}").format(sql.Literal("hunter2"), sql.Identifier("Some name")))


async def _with_asyncpg(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        assert await connection.fetchval("SELECT $1::int + 1", 41) == 42
        await connection.execute("SELECT 'hunter2' AS password, 7")
        async with connection.transaction():
            assert [row[0] async for row in connection.cursor("SELECT generate_series(1, 3)")] == [1, 2, 3]
    finally:
        await connection.close()


async def _with_redis(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.set("session", "hunter2")
        assert client.get("session") == b"hunter2"
        client.pipeline().set("a", "hunter2").lpush("b", "hunter2").execute()
    async with redis.asyncio.Redis.from_url(url) as client_:
        assert await client_.get("session") == b"hunter2"


def test_statements_of_a_request_are_spans_below_its_own(instrument: Instrument, database: str, cache: str) -> None:
    """What psycopg, asyncpg and redis do in a request arrives as children of its span, sync and async, with no value in them."""

    async def work() -> None:
        await _with_psycopg(database)
        await _with_asyncpg(database)
        await _with_redis(cache)

    with _traced(instrument, libraries=["starlette", *CLIENTS]) as received:
        _request(work)
        children = _children(received)
        said = _said(children)
    assert said[:3] == ["SELECT %s::int + ?", "SELECT ? AS password, ?", 'SELECT ? AS "Some name"']
    assert [text for text in said if "$1" in text or "generate" in text][:2] == ["SELECT $1::int + ?", "SELECT generate_series(?, ?)"]
    assert said[-4:] == ["SET ? ?", "GET ?", "SET ? ?\nLPUSH ? ?", "GET ?"]
    assert {attributes(span)["db.system"] for span in children} == {"postgresql", "redis"}
    assert "hunter2" not in str(received.spans)
    assert "41" not in "".join(said)


def test_what_an_instrumentor_trips_over_is_executed_all_the_same(instrument: Instrument, database: str) -> None:
    """A statement that is nothing but a comment has no first word to name a span after, which is nothing to the application."""
    with _traced(instrument):
        testing.reraise_internal_errors(on=False)
        with psycopg.connect(database) as connection:
            connection.execute("/* still there? */")


def test_an_engine_over_a_traced_driver_makes_one_span_of_a_statement(instrument: Instrument, database: str) -> None:
    """With SQLAlchemy's spans the driver's give way, sync and async, and what is done with the driver itself keeps its own."""

    async def work() -> None:
        engine = sqlalchemy.create_engine(database.replace("postgresql", "postgresql+psycopg"))
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT 'one' AS a"))
            raw = connection.connection.cursor()
            raw.execute("SELECT 'two' AS b")
        engine.dispose()
        async_engine = sqlalchemy.ext.asyncio.create_async_engine(database.replace("postgresql", "postgresql+asyncpg"))
        async with async_engine.connect() as connection_:
            await connection_.execute(sqlalchemy.text("SELECT 'three' AS c WHERE :d = 4"), {"d": 4})
        await async_engine.dispose()

    with _traced(instrument) as received:
        _request(work)
        said = _said(_all_clients(received))
    ours = [text for text in said if " AS " in text and "SELECT ?" in text]
    assert ours == ["SELECT ? AS a", "SELECT ? AS b", "SELECT ? AS c WHERE $1 = ?"]


def _all_clients(received: Receiver) -> list[Span]:
    assert sage_obs.flush(5)
    return sorted((span for span in received.spans if span.kind == Span.SPAN_KIND_CLIENT), key=lambda span: span.start_time_unix_nano)


async def _fails(call: Callable[[], Awaitable[object]]) -> BaseException:
    try:
        await call()
    except Exception as exc:  # noqa: BLE001 - whichever it is
        return exc
    raise AssertionError("it did not fail")


async def _failures(database: str, cache: str) -> list[tuple[type, str]]:
    """What applications get of databases that refuse a statement, and of dead ones."""
    dead = free_port()

    async def refused() -> None:
        with psycopg.connect(database) as connection:
            connection.execute("SELECT secret_column FROM pg_class WHERE relname = 'hunter2'")

    async def refused_by_engine() -> None:
        engine = sqlalchemy.create_engine(database.replace("postgresql", "postgresql+psycopg"), poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT 1/0 AS x, 'hunter2' AS y"))

    async def refused_async() -> None:
        connection = await asyncpg.connect(database)
        try:
            await connection.fetch("SELECT 'hunter2'::int")
        finally:
            await connection.close()

    calls: list[Callable[[], Awaitable[object]]] = [
        refused,
        refused_by_engine,
        refused_async,
        lambda: asyncio.to_thread(redis.Redis.from_url(cache).lpush, "session", "hunter2"),
        lambda: asyncio.to_thread(psycopg.connect, f"postgresql://x@127.0.0.1:{dead}/x", connect_timeout=2),
        lambda: asyncpg.connect(f"postgresql://x@127.0.0.1:{dead}/x"),
        lambda: asyncio.to_thread(redis.Redis(port=dead, retry=Retry(NoBackoff(), 0)).get, "session"),
        lambda: redis.asyncio.Redis(port=dead, retry=AsyncRetry(NoBackoff(), 0)).get("session"),
    ]
    found = [await _fails(call) for call in calls]
    return [(type(one), str(one).replace(str(dead), "PORT")) for one in found]


def test_the_application_s_exceptions_are_its_own_and_leave_nothing_in_spans(instrument: Instrument, database: str, cache: str) -> None:
    """Refused statements and dead databases raise what they raise without the layer; the span has the type and not the message."""
    redis.Redis.from_url(cache).set("session", "x")
    plain = asyncio.run(_failures(database, cache))
    seen: list[tuple[type, str]] = []

    async def work() -> None:
        seen.extend(await _failures(database, cache))

    with _traced(instrument) as received:
        _request(work)
        failed = [span for span in _all_clients(received) if span.status.code == 2]
    assert seen == plain
    kinds = {attributes(span)["error.type"] for span in failed}
    assert kinds >= {"UndefinedColumn", "DivisionByZero", "InvalidTextRepresentationError", "ResponseError", "ConnectionError"}, kinds
    assert not any(span.events or span.status.message for span in received.spans)
    assert "hunter2" not in str(received.spans)


def test_nothing_is_exported_of_requests_that_are_not_sampled_nor_after_the_end(instrument: Instrument, database: str, cache: str) -> None:
    """An unsampled request has no span at all, and connections that outlive the layer make none."""
    with psycopg.connect(database) as before, receiver() as received:
        instrument(traces_endpoint=received.url, sampling_rate=1.0)
        during = psycopg.connect(database)
        client = redis.Redis.from_url(cache)

        async def work() -> None:
            during.execute("SELECT 1")
            before.execute("SELECT 1")
            client.get("a")

        _request(work, sampled=False)
        assert sage_obs.flush(5)
        assert received.spans == []
        sage_obs.uninstrument()
        instrument(traces_endpoint=received.url, sampling_rate=1.0, disable=CLIENTS)
        _request(work)
        assert sage_obs.flush(5)
        assert [span.kind for span in received.spans] == [Span.SPAN_KIND_SERVER]
        instrument(traces_endpoint=received.url, sampling_rate=1.0)
        _request(work)
        assert sage_obs.flush(5)
        assert {span.name for span in received.spans[1:]} == {"SELECT", "GET", "GET /work"}, "a pool's connections are traced again"
        during.close()
        client.close()


def test_an_application_that_has_instrumented_a_library_itself_is_left_alone(instrument: Instrument, database: str) -> None:
    """Its instrumentor stays as it is, makes the only span of a statement, and is still there when the layer goes."""
    from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor

    with receiver() as received:
        instrument(traces_endpoint=received.url, sampling_rate=1.0, libraries=["starlette"])
        spans = tracing().spans
        PsycopgInstrumentor().instrument(tracer_provider=spans.provider)  # type: ignore[union-attr]
        try:
            handle = instrument(traces_endpoint=received.url, sampling_rate=1.0)
            assert str(handle.status()["psycopg"]) == "off: the application's own instrumentor makes its spans"
            assert handle.status()["redis"].on

            async def work() -> None:
                with psycopg.connect(database) as connection:
                    connection.execute("SELECT 1")

            _request(work)
            assert [span.name for span in _children(received)] == ["SELECT"]
            sage_obs.uninstrument()
            assert PsycopgInstrumentor().is_instrumented_by_opentelemetry
        finally:
            PsycopgInstrumentor().uninstrument()


APP = """\
import os
import psycopg, redis
import sage_obs
from sage_obs.lifecycle import running

with psycopg.connect(os.environ["DATABASE"]) as connection:
    connection.execute("SELECT 'hunter2' AS password")
redis.Redis.from_url(os.environ["CACHE"]).get("hunter2")
sage_obs.flush()
print({name: str(running().status()[name]) for name in ("psycopg", "redis")})
"""
BIN = Path(sys.executable).parent
OURS = {"OTEL_PYTHON_DISTRO": "sage_obs", "OTEL_PYTHON_CONFIGURATOR": "sage_obs"}
DOORS = {
    "run": ([sys.executable, "-m", "sage_obs", "run", "--", sys.executable, "app.py"], {}),
    "opentelemetry": ([str(BIN / "opentelemetry-instrument"), "python", "app.py"], OURS),
    "another distribution": ([str(BIN / "opentelemetry-instrument"), "python", "app.py"], {**OURS, "OTEL_PYTHON_DISTRO": "distro"}),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_statement_has_one_span_whichever_door_the_layer_came_in_by(database: str, cache: str, tmp_path: Path, door: str) -> None:
    """With OpenTelemetry's command its instrumentors are used once; by our distribution they are ours, and leave the values out."""
    (tmp_path / "app.py").write_text(APP)
    command, variables = DOORS[door]
    with receiver() as received:
        environ = {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "SAGE_METRICS_HOST": "127.0.0.1",
            "SAGE_METRICS_PORT": "0",
            "SAGE_LOG_OUTPUT": "stderr",
            "SAGE_TRACING_SAMPLING_RATE": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": received.url,
            "DATABASE": database,
            "CACHE": cache,
        }
        done = subprocess.run(command, cwd=tmp_path, env=environ | variables, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        spans = [span for span in received.wait(2) if "db.system" in attributes(span)]
    assert sorted(span.name for span in spans) == ["GET", "SELECT"], done.stderr
    if door != "another distribution":
        assert sorted(_said(spans)) == ["GET ?", "SELECT ? AS password"]
        assert "hunter2" not in str(spans)
        assert "once it is imported" in done.stdout
