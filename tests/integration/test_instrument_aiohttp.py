from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import aiohttp
import httpx
import pytest

from sage_obs.conventions import ERRORS, REQUEST_OVERHEAD, REQUESTS, REQUESTS_IN_FLIGHT, TIME_TO_FIRST_BYTE
from tests.support.services import Service, running, wait_until

SERVICE = """\
import asyncio
import logging
import os

from aiohttp import web

log = logging.getLogger("service")
routes = web.RouteTableDef()


@routes.get("/hello/{name}")
async def hello(request):
    log.info("hello")
    return web.Response(text=f"hello {request.match_info['name']}")


@routes.post("/rpc")
async def rpc(request):
    return web.json_response({"jsonrpc": "2.0", "error": {"code": -32603}})


@routes.get(r"/stream/{count:\\d+}")
async def stream(request):
    response = web.StreamResponse()
    await response.prepare(request)
    for number in range(int(request.match_info["count"])):
        await response.write(f"{number} ".encode())
        await asyncio.sleep(0.01)
    log.info("after the pieces")
    return response


@routes.get("/broken/{x}")
async def broken(request):
    raise RuntimeError("broken")


@routes.get("/half")
async def half(request):
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"half")
    raise RuntimeError("half")


@routes.get("/slow")
async def slow(request):
    log.info("slow")
    await asyncio.sleep(0.5)
    return web.Response()


@routes.get("/refused")
async def refused(request):
    raise web.HTTPTooManyRequests


@routes.get("/file")
async def file(request):
    return web.FileResponse(__file__)


@routes.get("/model")
async def model(request):
    with sage_obs.llm_call("openai", "gpt-4o"):
        await asyncio.sleep(0.5)
    return web.Response()


@routes.get("/ws/{x}")
async def talk(request):
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data)
    return socket


app, sub = web.Application(), web.Application()
app.add_routes(routes)
sub.add_routes([web.get("/leaf/{name}", hello)])
app.add_subapp("/sub", sub)


async def off(request):
    sage_obs.uninstrument()
    return web.Response()


app.router.add_get("/off", off)

import sage_obs

sage_obs.instrument("shop")
web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), print=None)
"""


def _ask(service: Service, client: httpx.Client) -> None:
    answer = client.get(f"{service.url}/hello/bob", headers={"x-request-id": "r1"})
    assert (answer.text, answer.headers["x-request-id"]) == ("hello bob", "r1")
    assert client.post(f"{service.url}/rpc").status_code == 200
    assert client.get(f"{service.url}/stream/3").text == "0 1 2 "
    assert client.get(f"{service.url}/broken/1").status_code == 500
    assert client.get(f"{service.url}/refused").status_code == 429
    assert "import web" in client.get(f"{service.url}/file").text
    assert client.get(f"{service.url}/model").status_code == 200
    assert client.get(f"{service.url}/nowhere/7").headers["x-request-id"]
    assert client.post(f"{service.url}/hello/bob").status_code == 405
    assert client.get(f"{service.url}/health/live").json() == {"name": "liveness", "status": "healthy"}
    assert client.get(f"{service.url}/metrics").status_code == 404


def _check(service: Service) -> None:
    service.reaches(9, REQUESTS)
    for operation, outcome, count in (
        ("GET /hello/{name}", "success", 1),
        ("POST /rpc", "server_error", 1),
        ("GET /stream/{count}", "success", 1),
        ("GET /broken/{x}", "server_error", 1),
        ("GET /refused", "rejected", 1),
        ("GET /file", "success", 1),
        ("GET /model", "success", 1),
        ("unmatched", "client_error", 2),
    ):
        assert service.value(REQUESTS, operation=operation, outcome=outcome, protocol="http") == count, operation
    assert service.value(REQUESTS_IN_FLIGHT) == 0
    assert service.value(REQUEST_OVERHEAD, suffix="_bucket", operation="GET /model", le="0.4") == 1
    assert service.value(TIME_TO_FIRST_BYTE, suffix="_count") == 1
    assert service.value(TIME_TO_FIRST_BYTE, suffix="_count", operation="GET /stream/{count}") == 1
    assert service.line("hello")["request_id"] == "r1"
    assert service.line("GET /hello/bob 200")["operation"] == "GET /hello/{name}"
    streamed, failed = service.line("GET /stream/3 200"), service.line("GET /broken/1 500")
    assert service.line("after the pieces")["request_id"] == streamed["request_id"]
    tracebacks = [line for line in service.lines() if line.get("error.type") == "RuntimeError"]
    assert [line["request_id"] for line in tracebacks] == [failed["request_id"]]
    assert not service.lines(logger="aiohttp.access")


def test_an_aiohttp_server_is_measured_by_its_resources(tmp_path: Path) -> None:
    """Every kind of answer of a real server: counts, templates, ids, streams, refusals, files, probes on the own port."""
    with running(tmp_path, SERVICE, "-W", "error", "service.py") as service, httpx.Client(trust_env=False) as client:
        _ask(service, client)
        _check(service)
        client.get(f"{service.url}/sub/leaf/1")
        service.reaches(1, REQUESTS, operation="GET /sub/leaf/{name}", outcome="success")


def test_a_caller_who_leaves_aiohttp_cancels_and_a_handler_that_breaks_off_fails(tmp_path: Path) -> None:
    """All end the connection in the middle, or before the answer begins; whose doing it was is told apart."""
    with running(tmp_path, SERVICE, "service.py") as service:
        with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2]))) as connection:
            connection.sendall(b"GET /stream/2000 HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda: connection.recv(4096))
        service.reaches(1, REQUESTS, operation="GET /stream/{count}", outcome="cancelled")
        with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2]))) as connection:
            connection.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            service.line("slow")
        service.reaches(1, REQUESTS, operation="GET /slow", outcome="cancelled")
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{service.url}/half", trust_env=False)
        service.reaches(1, REQUESTS, operation="GET /half", outcome="server_error")
        service.reaches(1, ERRORS, error_type="internal")
        assert service.value(REQUESTS_IN_FLIGHT) == 0


def test_websockets_and_a_switched_off_layer_are_left_alone(tmp_path: Path) -> None:
    """A websocket works and is not counted; after uninstrument() answers have nothing of ours, mid-request included."""

    async def talk(url: str) -> str:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/ws/1") as connection:
            await connection.send_str("hello")
            return str(await connection.receive_str())

    with running(tmp_path, SERVICE, "service.py") as service, httpx.Client(trust_env=False) as client:
        assert asyncio.run(talk(service.url)) == "hello"
        assert client.get(f"{service.url}/hello/x").status_code == 200
        service.reaches(1, REQUESTS)
        assert client.get(f"{service.url}/off").status_code == 200
        assert "x-request-id" not in client.get(f"{service.url}/hello/x").headers
        assert client.get(f"{service.url}/health/live").status_code == 404
