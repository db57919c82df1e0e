"""A server with a drain that loses no request: started late enough, stopped gently."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvloop

from sage_agent.server.accepting import Accepting, TakingTurns
from sage_agent.server.connections import Application, Connections
from sage_agent.server.hooks import Hooks
from sage_agent.server.line import WorkerLine
from sage_agent.server.protocol import Connection
from sage_agent.server.quiet import QuietConnections
from sage_agent.server.sockets import BACKLOG
from sage_agent.server.tls import Certificate

_log = logging.getLogger("sage_agent")
_LINGER_SECONDS: Final = 1.0
"""How long a draining server keeps a connection without a request: its caller may have opened it a moment ago, or have read an answer
that did not say close, and be about to send one. Callers in use are gone sooner, as their next answer tells them to close."""
_SWEEP_SECONDS: Final = 0.1
_CUT_SECONDS: Final = 1.0
"""How long requests that were cut may take to say so to their callers."""
_POLL_SECONDS: Final = 0.01
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class DrainingServer:
    """Serves `app` until SIGTERM or SIGINT, then drains.

    Draining: say so; stop accepting; answer what is in flight and what still comes on open connections, telling each caller to close
    its connection; close those on which nothing comes; after `drain_timeout` seconds, or at a second signal, cut what is left.
    """

    def __init__(
        self,
        app: Application,
        hooks: Hooks,
        *,
        drain_timeout: float,
        certificate: Certificate | None = None,
        redirect: tuple[socket.socket, Application] | None = None,
        line: WorkerLine | None = None,
        shared: bool = False,
    ) -> None:
        self._shared = Connections(app)
        self._line = line
        self._takes_turns = shared
        self._hooks = hooks
        self._drain_timeout = drain_timeout
        self._certificate = certificate
        self._redirect = redirect
        self._stop = asyncio.Event()
        self._cut = asyncio.Event()
        self.cut_requests = 0

    def serve_on(self, sock: socket.socket) -> None:
        """Serve connections of a listening socket; returns when drained."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve(sock))

    async def _serve(self, sock: socket.socket) -> None:
        with self._signals(), self._supervised():
            if not await self._may_start():
                return
            self._shared.tick()
            accepting = await self._accept(sock)
            self._hooks.listening()
            if self._line is not None:
                self._line.ready()
            while not await self._wait(self._stop, 1.0):
                self._tick()
                if self._certificate is not None:
                    self._certificate.look()
            await self._drain(accepting)

    def _tick(self) -> None:
        self._shared.tick()
        if self._line is not None:
            self._line.alive()

    async def _accept(self, sock: socket.socket) -> list[Accepting]:
        """Take connections: all that come, or, where others take from the same socket, one at a time, so that they get theirs."""
        loop = asyncio.get_running_loop()
        accepting: list[Accepting] = []
        if self._redirect is not None:
            aside, redirect = self._redirect
            accepting.append(await loop.create_server(lambda: Connection(self._shared, redirect), sock=aside, backlog=BACKLOG))
        certificate, arriving = self._certificate, self._shared.arriving
        if certificate is not None:
            accepting.append(TakingTurns(loop, sock, lambda: Connection(self._shared), tls=lambda: certificate.context, arriving=arriving))
        elif self._takes_turns:
            accepting.append(TakingTurns(loop, sock, lambda: Connection(self._shared), tls=None, arriving=arriving))
        else:
            accepting.append(await loop.create_server(lambda: Connection(self._shared), sock=sock, backlog=BACKLOG))
        return accepting

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Take signals in the loop, so that nobody sleeps through them and the process ends with our exit code, not by the signal.

        Whoever has drained is about to end: what it still has to flush is bounded, and a signal more would only lose it. The loop's own
        handlers are not used, as it leaves the process without any before that. A supervisor alone hears SIGHUP.
        """
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(self._on_signal))
        if self._line is not None:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            yield
        finally:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN)

    @contextmanager
    def _supervised(self) -> Iterator[None]:
        """End with the supervisor, however it ends."""
        if self._line is None:
            yield
            return
        with self._line.listening(ended=self._stop.set, cut=self._cut_short):
            yield

    def _on_signal(self) -> None:
        """Drain. A second one is impatience, unless there is a supervisor, which has seen the same signals and says when to cut."""
        if self._stop.is_set() and self._line is None:
            self._cut.set()
        self._stop.set()

    def _cut_short(self) -> None:
        self._stop.set()
        self._cut.set()

    async def _may_start(self) -> bool:
        """Wait until connections may be taken; False where it is time to stop before."""
        waiting = asyncio.ensure_future(self._hooks.before())
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({waiting, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if self._stop.is_set():
            waiting.cancel()
            return False
        await waiting
        return True

    async def _drain(self, accepting: list[Accepting]) -> None:
        self._hooks.draining()
        for one in accepting:
            one.close()
        self._shared.draining = True
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
            self._shared.tick()
            for connection in quiet.among(self._shared.opened, now=loop.time()):
                connection.shutdown()

    async def _emptied(self, seconds: float) -> bool:
        """Wait for so long at most until nothing is open; whether nothing is.

        It never tells at once: a connection accepted last is known only when the loop has gone round.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            left = deadline - asyncio.get_running_loop().time()
            await asyncio.sleep(max(0.0, min(_POLL_SECONDS, left)))
            if not (self._shared.opened or self._shared.tasks or self._shared.arriving):
                return True
            if left <= 0 or self._cut.is_set():
                return False

    async def _cut_the_rest(self) -> None:
        for connection in list(self._shared.opened):
            connection.shutdown()
        tasks = set(self._shared.tasks)
        if not tasks:
            return
        self.cut_requests = len(tasks)
        _log.warning("drain ended with requests in flight", extra={"cut_requests": len(tasks)})
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_CUT_SECONDS)

    async def _wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Whether it happens within so many seconds."""
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            return False
        return True
