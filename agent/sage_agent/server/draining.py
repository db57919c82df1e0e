"""uvicorn with a drain that loses no request: started late enough, stopped gently."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from socket import socket
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sage_agent.server.hooks import Hooks
from sage_agent.server.quiet import QuietConnections, refuse_more
from sage_agent.server.sockets import BACKLOG

_log = logging.getLogger("sage_agent")
_KEEP_ALIVE_SECONDS: Final = 75
"""Longer than the idle timeout of common load balancers (60 s), so that they and not we close idle connections."""
_LINGER_SECONDS: Final = 1.0
"""How long a draining server keeps a connection without a request: its caller may have opened it a moment ago, or have read an answer
that did not say close, and be about to send one. Callers in use are gone sooner, as their next answer tells them to close."""
_SWEEP_SECONDS: Final = 0.1
_CUT_SECONDS: Final = 1.0
"""How long requests that were cut may take to say so to their callers."""
_POLL_SECONDS: Final = 0.01


class DrainingServer(uvicorn.Server):
    """Serves `app` until SIGTERM or SIGINT, then drains.

    Draining: say so; stop accepting; answer what is in flight and what still comes on open connections, telling each caller to close
    its connection; close those on which nothing comes; after `drain_timeout` seconds, or at a second signal, cut what is left.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], hooks: Hooks, *, drain_timeout: float) -> None:
        super().__init__(_uvicorn_config(app))
        self._hooks = hooks
        self._drain_timeout = drain_timeout
        self._stop = asyncio.Event()
        self._cut = asyncio.Event()
        self.cut_requests = 0

    def serve_on(self, sock: socket) -> None:
        """Serve connections of a listening socket; returns when drained."""
        self.run(sockets=[sock])

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take signals in the loop, so that nobody sleeps through them and the process ends with our exit code, not by the signal."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._cut.set()
        self._stop.set()

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Wait until connections may be taken, then take them."""
        waiting = asyncio.ensure_future(self._hooks.before())
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({waiting, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if self._stop.is_set():
            waiting.cancel()
            self.should_exit = True
            return
        await waiting
        await super().startup(sockets)
        self._hooks.listening()

    async def main_loop(self) -> None:
        """Keep the date header right until it is time to stop."""
        while not self._stop.is_set():
            await self.on_tick(0)
            await self._wait(self._stop, 1.0)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Drain."""
        self._hooks.draining()
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        self.server_state.default_headers.append((b"connection", b"close"))
        for connection in self._connections():
            refuse_more(connection)
        await self._empty(asyncio.get_running_loop().time() + self._drain_timeout)
        await self._cut_the_rest()
        await self._hooks.after()

    async def _empty(self, deadline: float) -> None:
        """Wait until nothing is open, closing what is quiet; until the deadline at most, or until somebody loses patience."""
        loop = asyncio.get_running_loop()
        quiet = QuietConnections(_LINGER_SECONDS)
        while not await self._emptied(min(_SWEEP_SECONDS, deadline - loop.time())):
            if self._cut.is_set() or loop.time() >= deadline:
                return
            for connection in quiet.among(self._connections(), now=loop.time()):
                connection.shutdown()

    async def _emptied(self, seconds: float) -> bool:
        """Wait for so long at most until nothing is open; whether nothing is.

        It never tells at once: a connection accepted last is known only when the loop has gone round.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            left = deadline - asyncio.get_running_loop().time()
            await asyncio.sleep(max(0.0, min(_POLL_SECONDS, left)))
            if not self.server_state.connections and not self.server_state.tasks:
                return True
            if left <= 0 or self._cut.is_set():
                return False

    def _connections(self) -> list[HttpToolsProtocol]:
        return [one for one in self.server_state.connections if isinstance(one, HttpToolsProtocol)]

    async def _cut_the_rest(self) -> None:
        for connection in self._connections():
            connection.shutdown()
        tasks = set(self.server_state.tasks)
        if not tasks:
            return
        self.cut_requests = len(tasks)
        _log.warning("drain ended with requests in flight", extra={"cut_requests": len(tasks)})
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_CUT_SECONDS)

    async def _wait(self, event: asyncio.Event, seconds: float) -> None:
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            return


def _uvicorn_config(app: Callable[..., Awaitable[None]]) -> uvicorn.Config:
    options: dict[str, Any] = {"http": "httptools", "loop": "uvloop", "ws": "none", "lifespan": "off"}
    return uvicorn.Config(
        app,
        **options,
        interface="asgi3",
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
    )
