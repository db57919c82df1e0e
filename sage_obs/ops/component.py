"""The operations server as a component of the layer."""

from __future__ import annotations

from http import HTTPStatus

from sage_obs.component import Unbuffered
from sage_obs.errors import UnavailableError
from sage_obs.health.board import Board
from sage_obs.metrics.component import MetricsComponent
from sage_obs.ops.server import OpsServer
from sage_obs.ops.turn import Turn
from sage_obs.settings import Settings


class OpsComponent(Unbuffered):
    """Serves metrics and health on the metrics port: of several processes that share metrics, the first that can have it."""

    name = "ops"

    def __init__(self, settings: Settings, *, metrics: MetricsComponent | None, board: Board | None) -> None:
        self._settings = settings
        self._metrics = metrics
        self._board = board
        self._server: OpsServer | None = None
        self._turn: Turn | None = None
        self._wanted = settings.metrics_port
        self._left = False
        self._serves = True

    @property
    def port(self) -> int | None:
        """The port it listens on, None while it does not."""
        server = self._server  # another thread may take its turn
        return None if server is None else server.port

    @property
    def at_work(self) -> bool:
        """Whether it listens, or takes the port over once that is free."""
        return self._server is not None or self._turn is not None

    @property
    def words(self) -> str:
        """What it does."""
        if (port := self.port) is not None:
            return f"on {self._settings.metrics_host}:{port}"
        if self._left:
            return "the workers serve"
        return f"another process serves on port {self._wanted}" if self._turn is not None else "the parent process serves"

    def start(self) -> str:
        """Listen, or wait for the port where another process of this service has it. Raises UnavailableError where it cannot be had."""
        try:
            self._listen()
        except UnavailableError:
            if not self._wait(forked=False):
                raise
        return self.words

    def _listen(self) -> None:
        from sage_obs.ops.pages import OpsPages

        self._server = OpsServer(OpsPages(board=self._board, metrics=self._metrics), host=self._settings.metrics_host, port=self._wanted)
        self._wanted = self._server.port

    def _wait(self, *, forked: bool) -> bool:
        """Take the port when it is free; whether there are others to take it over from."""
        if self._metrics is None or not self._metrics.sharing.on or not self._wanted:
            return False
        host, sharing = self._settings.metrics_host, self._metrics.sharing
        self._turn = Turn(self._take, self._tell, sharing, host=host, port=self._wanted, knock=not forked)
        return True

    def _tell(self) -> None:
        """Report this worker's health beside that of who answers; a process that does not serve has none to report."""
        if self._metrics is not None and self._board is not None and self._serves and self._board.startup().status == HTTPStatus.OK:
            self._metrics.refresh()

    def _take(self) -> bool:
        try:
            self._listen()
        except UnavailableError:
            return False
        return True

    def release(self) -> None:
        """Leave the port to the workers that this process supervises."""
        self._left = True
        self._close()

    def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def stop(self, timeout: float) -> None:
        """Stop listening."""
        del timeout
        if self._turn is not None:
            self._turn.close()
            self._turn = None
        self._close()

    def restart_after_fork(self) -> None:
        """The port stays the parent's, until that leaves it."""
        if self._server is not None:
            self._server.abandon()
        self._serves = self._left  # the child of a process that serves is no worker beside it
        self._server = self._turn = None
        self._left = False
        self._wait(forked=True)
