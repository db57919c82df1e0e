"""uvicorn: its loggers go through ours, and its access log is silenced, as ours has a line for every request.

uvicorn sets its loggers up when its Config is made, which may be before or after instrument(); both are covered. It ends itself by the
signal that ended its serving, without any exit handler, so what waits to be sent is sent before. Its loggers stay its own where there
are no lines of ours.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Final

from sage_obs import ending, records
from sage_obs.health.board import board
from sage_obs.integrations.loggers import SILENT, TO_ROOT, TakenOver
from sage_obs.integrations.patch import Patch, Patches


class UvicornIntegration:
    """Routes uvicorn's loggers to the root logger and silences its access log."""

    name = "uvicorn"
    module = "uvicorn.config"
    versions = ("0.20", "1")

    def __init__(self) -> None:
        self._patches = Patches()
        self._loggers = TakenOver({"uvicorn": TO_ROOT, "uvicorn.error": TO_ROOT, "uvicorn.asgi": TO_ROOT, "uvicorn.access": SILENT})

    def install(self) -> None:
        """Take the loggers over, now and whenever uvicorn sets them up."""
        from uvicorn.config import Config
        from uvicorn.server import Server

        if self._patches.install(Patch(Config, "configure_logging", self._then_take_over), Patch(Server, "_serve", _sending_at_the_end)):
            self._take_over()
            board().expect_app()

    def uninstall(self) -> None:
        """Put the loggers back as uvicorn had set them up."""
        if self._patches.uninstall():
            self._loggers.give_back()

    def _then_take_over(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def configure_logging(config: Any) -> None:
            original(config)
            self._take_over()

        return configure_logging

    def _take_over(self) -> None:
        if self._patches and records.handler() is not None:
            self._loggers.take()


def _sending_at_the_end(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(original)
    async def _serve(server: Any, *args: Any, **kwargs: Any) -> None:
        await original(server, *args, **kwargs)
        if signal.SIGTERM in getattr(server, "_captured_signals", ()):  # which it sends itself again now, and no exit handler runs
            ending.near()

    return _serve


INTEGRATION: Final = UvicornIntegration()
