"""The operations server as a component of the layer."""

from __future__ import annotations

from sage_obs.component import Unbuffered
from sage_obs.health.board import Board
from sage_obs.metrics.component import MetricsComponent
from sage_obs.ops.server import OpsServer
from sage_obs.settings import Settings


class OpsComponent(Unbuffered):
    """Serves metrics and health on the metrics port, in the process that called instrument()."""

    name = "ops"

    def __init__(self, settings: Settings, *, metrics: MetricsComponent | None, board: Board | None) -> None:
        self._settings = settings
        self._metrics = metrics
        self._board = board
        self._server: OpsServer | None = None

    @property
    def port(self) -> int | None:
        """The port it listens on, None while it does not."""
        return None if self._server is None else self._server.port

    def start(self) -> str:
        """Listen. Raises UnavailableError where the port cannot be had."""
        from sage_obs.ops.pages import OpsPages

        settings = self._settings
        self._server = OpsServer(OpsPages(board=self._board, metrics=self._metrics), host=settings.metrics_host, port=settings.metrics_port)
        return f"on {settings.metrics_host}:{self._server.port}"

    def stop(self, timeout: float) -> None:
        """Stop listening."""
        del timeout
        if self._server is not None:
            self._server.close()
            self._server = None

    def restart_after_fork(self) -> None:
        """The port stays the parent's."""
        if self._server is not None:
            self._server.abandon()
            self._server = None
