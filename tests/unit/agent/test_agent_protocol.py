"""Connections over loopback, in this process, with bounds that do not take long."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvloop

from sage_agent.server.connections import Application, Bounds, Connections
from sage_agent.server.protocol import Connection

_GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


async def _large(scope: Any, receive: Any, send: Any) -> None:
    """Answers with more than fits into any socket's buffers."""
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"50000000")]})
    await send({"type": "http.response.body", "body": b"x" * 50_000_000})


@asynccontextmanager
async def _served(app: Application, bounds: Bounds) -> AsyncIterator[tuple[Connections, socket.socket]]:
    """A server and a caller that has connected to it."""
    loop = asyncio.get_running_loop()
    shared = Connections(app, bounds)
    server = await loop.create_server(lambda: Connection(shared), "127.0.0.1", 0)
    caller = socket.socket()
    caller.setblocking(False)
    try:
        await loop.sock_connect(caller, server.sockets[0].getsockname())
        yield shared, caller
    finally:
        caller.close()
        server.close()
        while shared.opened or shared.tasks:  # noqa: ASYNC110 - sets tell nobody
            await asyncio.sleep(0.01)


async def _until_gone(shared: Connections) -> None:
    while shared.opened:
        shared.tick()
        await asyncio.sleep(0.01)


def _run(work: Any) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(work, 10))


def test_a_caller_that_takes_nothing_of_its_answer_is_broken_off() -> None:
    """Kept alive or closing, a connection whose caller does not read is not held for ever."""

    async def work() -> None:
        for head in (_GET, _GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")):
            async with _served(_large, Bounds(stalled=0.2)) as (shared, caller):
                await asyncio.get_running_loop().sock_sendall(caller, head)
                while not shared.opened:  # noqa: ASYNC110 - the same
                    await asyncio.sleep(0.01)
                await _until_gone(shared)

    _run(work())


def test_a_caller_that_reads_slowly_gets_all_of_it() -> None:
    """As long as it takes something, however long that takes."""

    async def work() -> None:
        async with _served(_large, Bounds(stalled=0.2)) as (shared, caller):
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(caller, _GET)
            read = 0
            while read < 50_000_000:
                piece = await loop.sock_recv(caller, 2_000_000)
                assert piece
                read += len(piece)
                shared.tick()
                await asyncio.sleep(0.02)

    _run(work())


def test_a_head_that_is_not_read_is_not_late() -> None:
    """Who reads slowly and asks again meanwhile, in part, has its time for the rest of that once it is read on."""

    async def work() -> None:
        async with _served(_large, Bounds(head_seconds=0.2)) as (shared, caller):
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(caller, _GET)
            await asyncio.sleep(0.1)
            await loop.sock_sendall(caller, _GET[:20])
            for _ in range(10):
                await asyncio.sleep(0.05)
                shared.tick()
            await loop.sock_sendall(caller, _GET[20:])
            read = 0
            while read < 100_000_000:
                piece = await loop.sock_recv(caller, 4_000_000)
                assert piece
                read += len(piece)

    _run(work())
