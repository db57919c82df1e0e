from __future__ import annotations

import asyncio
import importlib
import logging
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Host, Mount, Route
from uvicorn.config import LOGGING_CONFIG, Config

import sage_obs
from sage_obs.conventions import REQUESTS
from sage_obs.errors import SageObsError
from sage_obs.integrations import base, versions
from sage_obs.integrations.base import UnusableLibraryError
from sage_obs.integrations.hook import ImportHook
from sage_obs.integrations.routes import fits
from tests.support.asgi import call, scope_of, serve
from tests.support.metrics import children, value

Start = Callable[..., sage_obs.Handle]
LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
OTHER_LOGGERS = ("gunicorn.error", "gunicorn.access", "_granian", "granian.access", "aiohttp.access")


@pytest.fixture
def loggers() -> Iterator[None]:
    """Uvicorn's loggers as they were."""
    found = {name: (list(logging.getLogger(name).handlers), logging.getLogger(name).propagate) for name in LOGGERS}
    yield
    for name, (handlers, propagate) in found.items():
        logging.getLogger(name).handlers[:] = handlers
        logging.getLogger(name).propagate = propagate


@pytest.mark.parametrize("name", base.NAMES)
def test_the_installed_version_is_one_the_integration_knows(name: str) -> None:
    """The versions an integration names include the one these tests run with."""
    integration = base.load(name)
    assert importlib.import_module(integration.module)
    assert versions.check(integration)


def test_an_unknown_version_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named and unusable is an error that says what would do; found and unusable is a status."""
    monkeypatch.setattr("importlib.metadata.version", lambda _: "99.0")
    with pytest.raises(UnusableLibraryError, match=r"99\.0 is not a version"):
        versions.check(base.load("httpx"))


@pytest.mark.parametrize(("text", "numbers"), [("0.27.1", (0, 27, 1)), ("1.0rc1", (1, 0)), ("2", (2,)), ("1.x", (1,))])
def test_versions_compare_by_their_numbers(text: str, numbers: tuple[int, ...]) -> None:
    """Only release numbers count, and 0.100 is later than 0.27."""
    assert versions.numbers(text) == numbers
    assert versions.numbers("0.100") > versions.numbers("0.27")


def _application() -> Starlette:
    async def hello(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"hello {request.path_params.get('name', '')}")

    async def stream(_request: Request) -> StreamingResponse:
        async def pieces() -> Any:
            yield "a"
            yield "b"

        return StreamingResponse(pieces())

    async def broken(_request: Request) -> PlainTextResponse:
        raise ValueError("broken")

    async def shared(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("shared")

    inner = Starlette(routes=[Route("/item/{id:int}", hello)])
    return Starlette(
        routes=[
            Route("/hello/{name}", hello),
            Route("/stream", stream),
            Route("/broken", broken),
            Route("/one", shared),
            Route("/two/{x}", shared),
            Mount("/inner", inner),
            Mount("/deep", routes=[Route("/{a}/b", stream)]),
            Host("api.example.org", inner),
        ]
    )


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [
        ("GET", "/hello/bob", "GET /hello/{name}"),
        ("HEAD", "/hello/bob", "HEAD /hello/{name}"),
        ("POST", "/hello/bob", "POST /hello/{name}"),
        ("GET", "/nowhere", "unmatched"),
        ("EVIL", "/hello/bob", "unmatched"),
        ("GET", "/stream", "GET /stream"),
        ("GET", "/one", "GET /one"),
        ("GET", "/two/7", "GET /two/{x}"),
        ("GET", "/inner/item/7", "GET /inner/item/{id}"),
        ("GET", "/deep/x/b", "GET /deep/{a}/b"),
    ],
)
def test_the_operation_is_the_template_of_the_route(instrument: Start, method: str, path: str, operation: str) -> None:
    """Routes, mounts, convertors and shared endpoints are named by template, never by what the caller typed."""
    instrument()
    app = _application()
    call(app, method, path)
    call(app, method, path)
    assert {labels["operation"] for labels in children(REQUESTS)} == {operation}
    assert value(REQUESTS) == 2


def test_an_application_that_was_built_and_served_before_is_measured_too(instrument: Start) -> None:
    """instrument() covers what exists already, and uninstrument() leaves nothing behind in it."""
    app = _application()
    call(app, "GET", "/one")
    before = dict(vars(app))
    instrument()
    call(app, "GET", "/one")
    assert value(REQUESTS, operation="GET /one") == 1
    sage_obs.uninstrument()
    assert "x-request-id" not in call(app, "GET", "/one").headers
    assert vars(app) == before


def test_a_handler_that_raises_is_a_server_error_whose_exception_goes_on(instrument: Start) -> None:
    """Starlette answers 500 and raises again; that is one failure, not two."""
    instrument()
    with pytest.raises(ValueError, match="broken"):
        call(_application(), "GET", "/broken")
    assert value(REQUESTS, operation="GET /broken", outcome="server_error") == value(REQUESTS) == 1


def test_wrapping_an_application_that_is_found_anyway_counts_once(instrument: Start) -> None:
    """The outer measurement wins, with its own operation or the route's."""
    instrument()
    call(sage_obs.instrument_app(_application()), "GET", "/hello/bob")
    assert value(REQUESTS, operation="GET /hello/{name}") == value(REQUESTS) == 1


def test_an_endpoint_that_gets_another_route_later_is_named_by_the_one_that_matched(instrument: Start) -> None:
    """A route that is added while the application serves is known with its next request."""

    async def shared(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("shared")

    instrument()
    app = Starlette(routes=[Route("/one", shared)])
    call(app, "GET", "/one")
    app.router.routes.append(Route("/two/{x}", shared))
    call(app, "GET", "/two/7")
    call(app, "GET", "/one")
    assert (value(REQUESTS, operation="GET /one"), value(REQUESTS, operation="GET /two/{x}")) == (2, 1)


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [
        ("/a/{x}", "/a/1", True),
        ("/a/{x}", "/a", False),
        ("/a/{x}", "/b/1", False),
        ("/a/{x}", "/a/1/2", False),
        ("/a/{rest:path}", "/a/1/2", True),
    ],
)
def test_a_path_fits_a_template_segment_by_segment(template: str, path: str, expected: bool) -> None:  # noqa: FBT001 - a table
    """A placeholder is one segment, a path convertor the rest."""
    assert fits(template, path) is expected


def _echo(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, text=request.headers.get("traceparent", ""))


def _get(**headers: str) -> str:
    with httpx.Client(transport=httpx.MockTransport(_echo)) as client:
        return client.get("http://x/", headers=headers).text


def test_both_httpx_clients_carry_the_trace_on(instrument: Start) -> None:
    """Inside a request the header is the request's; outside there is none; one that is there stays."""
    instrument(sampling_rate=1.0)
    seen = []

    @sage_obs.agent("caller")
    async def caller() -> None:
        ids = sage_obs.current()
        wanted = f"00-{ids.trace_id}-{ids.span_id}-01"
        assert await asyncio.to_thread(_get) == wanted
        assert await asyncio.to_thread(_get, traceparent="mine") == "mine"
        async with httpx.AsyncClient(transport=httpx.MockTransport(_echo)) as asynchronous:
            assert (await asynchronous.get("http://x/")).text == wanted
        seen.append(wanted)

    asyncio.run(caller())
    assert _get() == ""
    assert len(seen) == 1


@pytest.mark.usefixtures("loggers")
def test_uvicorns_loggers_go_through_ours_whenever_it_sets_them_up(instrument: Start, tmp_path: Path) -> None:
    """Before and after its Config is made its loggers have no handlers of their own; afterwards they have uvicorn's again."""
    Config("x:y", log_config=LOGGING_CONFIG)
    instrument(log_output=str(tmp_path / "log"))
    for again in (False, True):
        if again:
            Config("x:y", log_config=LOGGING_CONFIG)
        assert not logging.getLogger("uvicorn").handlers
        assert not logging.getLogger("uvicorn.access").hasHandlers()
        logging.getLogger("uvicorn.error").info("started")
    sage_obs.flush()
    assert (tmp_path / "log").read_text().count('"message":"started"') == 2
    sage_obs.uninstrument()
    assert logging.getLogger("uvicorn").handlers
    assert logging.getLogger("uvicorn.access").handlers
    assert not logging.getLogger("uvicorn").propagate


def test_the_hook_runs_when_the_module_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is imported before the application does; then the callback runs once, and the module is an ordinary one."""
    (tmp_path / "late_library.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    hook, seen = ImportHook(), []
    try:
        hook.when_imported("late_library", lambda: seen.append(sys.modules["late_library"].VALUE))
        assert "late_library" not in sys.modules
        module = importlib.import_module("late_library")
        assert seen == [1]
        assert isinstance(module, types.ModuleType)
        assert type(module.__loader__).__name__ == type(module.__spec__.loader).__name__ == "SourceFileLoader"  # type: ignore[union-attr]
        importlib.reload(module)
        assert seen == [1]
    finally:
        hook.remove()
        sys.modules.pop("late_library", None)
    assert hook not in sys.meta_path


def test_a_callback_that_fails_does_not_fail_the_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application gets its module whatever becomes of the patch; a module that is broken itself still says so."""
    (tmp_path / "fine_library.py").write_text("")
    (tmp_path / "broken_library.py").write_text("raise ZeroDivisionError")
    monkeypatch.syspath_prepend(str(tmp_path))
    hook = ImportHook()
    try:
        hook.when_imported("fine_library", lambda: 1 // 0)  # type: ignore[arg-type]
        hook.when_imported("broken_library", lambda: None)
        assert importlib.import_module("fine_library")
        with pytest.raises(ZeroDivisionError):
            importlib.import_module("broken_library")
    finally:
        hook.remove()
        sys.modules.pop("fine_library", None)


def test_a_name_without_an_integration_is_an_error_only_if_strict(instrument: Start) -> None:
    """Strict raises with the names there are; otherwise status says it."""
    with pytest.raises(SageObsError, match="no integration for `flaskk`"):
        instrument(libraries=["flaskk"])
    handle = instrument(libraries=["flaskk"], strict=False, log_output="/dev/null")
    assert "There are: starlette" in handle.status()["flaskk"].why


def test_a_prefix_of_a_proxy_is_no_part_of_a_template(instrument: Start) -> None:
    """An endpoint with several routes is named by the one that fits the path below `root_path`, mounts and their own prefixes included."""

    async def shared(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("shared")

    routes = [Route("/one", shared), Route("/two/{name}", shared)]
    instrument(libraries=["starlette"])
    app = Starlette(routes=[*routes, Mount("/inner", routes=[Route("/three", shared)])])
    for path in ("/api/one", "/api/two/x", "/api/inner/three"):
        asyncio.run(serve(app, {**scope_of("GET", path), "root_path": "/api"}))
    names = {labels["operation"] for labels in children(REQUESTS)}
    assert names == {"GET /one", "GET /two/{name}", "GET /inner/three"}
