from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import httpx2
import pytest
import requests
from aiohttp import web
from aiohttp.test_utils import TestServer

import sage_obs
from sage_obs.conventions import REQUESTS
from sage_obs.integrations import aiohttp_call, versions
from sage_obs.integrations.base import UnusableLibraryError, load
from tests.support.metrics import value

Start = Callable[..., sage_obs.Handle]


async def _echo(request: web.Request) -> web.Response:
    """The trace a caller sent; one redirect on the way for those who ask for it."""
    if request.path == "/moved":
        raise web.HTTPFound("/")
    return web.Response(text=",".join(request.headers.getall("traceparent", [])))


def _served(work: Callable[[str], Awaitable[Any]]) -> Any:
    """What the work returns, given the address of a server that echoes."""

    async def main() -> Any:
        app = web.Application()
        app.router.add_get("/", _echo)
        app.router.add_get("/moved", _echo)
        async with TestServer(app) as server:
            return await work(str(server.make_url("/")))

    return asyncio.run(main())


async def _with_requests(url: str, **headers: str) -> str:
    def get() -> str:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(url, headers=headers).text

    return await asyncio.to_thread(get)


async def _with_aiohttp(url: str, **headers: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers or None) as answer:
        return await answer.text()


async def _with_httpx2(url: str, **headers: str) -> str:
    async with httpx2.AsyncClient(trust_env=False, follow_redirects=True) as client:
        return (await client.get(url, headers=headers)).text


async def _with_httpx2_in_a_thread(url: str, **headers: str) -> str:
    def get() -> str:
        with httpx2.Client(trust_env=False, follow_redirects=True) as client:
            return client.get(url, headers=headers).text

    return await asyncio.to_thread(get)


CLIENTS = {
    "requests": _with_requests,
    "aiohttp-client": _with_aiohttp,
    "httpx2": _with_httpx2,
    "httpx2 in a thread": _with_httpx2_in_a_thread,
}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_carries_the_trace_on(instrument: Start, client: str) -> None:
    """Inside a request the header is the request's, redirects included; outside there is none; one that is there stays."""
    get = CLIENTS[client]
    instrument(sampling_rate=1.0, libraries=[client.partition(" ")[0]])

    @sage_obs.agent("caller")
    async def caller(url: str) -> tuple[str, list[str]]:
        ids = sage_obs.current()
        return f"00-{ids.trace_id}-{ids.span_id}-01", [await get(url), await get(f"{url}moved"), await get(url, traceparent="mine")]

    wanted, seen = _served(caller)
    assert seen == [wanted, wanted, "mine"]
    assert _served(get) == ""
    sage_obs.uninstrument()
    assert _served(caller)[1] == ["", "", "mine"]


def test_a_served_request_leaves_nothing_behind(instrument: Start) -> None:
    """An aiohttp server in the process of its caller counts each request once and forgets it."""
    instrument(libraries=["aiohttp"])
    _served(_with_aiohttp)
    assert value(REQUESTS, operation="GET /", outcome="success") == value(REQUESTS) == 1
    assert not list(aiohttp_call._calls)


def test_a_library_of_another_name_is_named_by_what_pip_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The integration of aiohttp's client speaks of aiohttp."""
    assert versions.check(load("aiohttp-client"))
    monkeypatch.setattr("importlib.metadata.version", lambda _: "99.0")
    with pytest.raises(UnusableLibraryError, match=r"^aiohttp 99\.0 is not a version"):
        versions.check(load("aiohttp-client"))
