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

from sage_agent.hooks import Hooks
from sage_agent.sockets import BACKLOG

_log = logging.getLogger("sage_agent")
_KEEP_ALIVE_SECONDS: Final = 75
"""Longer than the idle timeout of common load balancers (60 s), so that they and not we close idle connections."""
_LINGER_SECONDS: Final = 0.1
"""How long a drained idle connection is kept: a request its caller has already sent arrives within a network round trip."""
_CUT_SECONDS: Final = 1.0
"""How long requests that were cut may take to say so to their callers."""
_POLL_SECONDS: Final = 0.01


class DrainingServer(uvicorn.Server):
    """Serves `app` until SIGTERM or SIGINT, then drains.

    Draining: say so; stop accepting; answer what is in flight, telling each caller to close its connection; after `drain_timeout`
    seconds, or at a second signal, cut what is left.
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
        deadline = asyncio.get_running_loop().time() + self._drain_timeout
        await self._emptied(min(_LINGER_SECONDS, self._drain_timeout))
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._emptied(deadline - asyncio.get_running_loop().time())
        await self._cut_the_rest()
        await self._hooks.after()

    async def _emptied(self, seconds: float) -> None:
        """Wait until nothing is open, for so long at most or until somebody loses patience."""
        deadline = asyncio.get_running_loop().time() + seconds
        while (self.server_state.connections or self.server_state.tasks) and not self._cut.is_set():
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return
            await asyncio.sleep(min(_POLL_SECONDS, left))

    async def _cut_the_rest(self) -> None:
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
