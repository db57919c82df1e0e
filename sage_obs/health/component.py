"""Health as a component of the layer."""

from __future__ import annotations

from sage_obs.component import Unbuffered
from sage_obs.health.board import Board


class HealthComponent(Unbuffered):
    """Answers probes on the application's own port, where the application does not itself."""

    name = "health"

    def __init__(self, board: Board) -> None:
        self._board = board

    def start(self) -> str:
        """Answer from now on."""
        self._board.served = True
        return "live, ready and startup"

    def stop(self, timeout: float) -> None:
        """Answer no more; the registered checks stay."""
        del timeout
        self._board.served = False
