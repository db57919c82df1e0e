"""uvicorn: its loggers go through ours, and its access log is silenced, as ours has a line for every request.

uvicorn sets its loggers up when its Config is made, which may be before or after instrument(); both are covered.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from sage_obs.health.board import board
from sage_obs.integrations.loggers import SILENT, TO_ROOT, TakenOver
from sage_obs.integrations.patch import Patch


class UvicornIntegration:
    """Routes uvicorn's loggers to the root logger and silences its access log."""

    name = "uvicorn"
    module = "uvicorn.config"
    versions = ("0.20", "1")

    def __init__(self) -> None:
        self._patch: Patch | None = None
        self._loggers = TakenOver({"uvicorn": TO_ROOT, "uvicorn.error": TO_ROOT, "uvicorn.asgi": TO_ROOT, "uvicorn.access": SILENT})

    def install(self) -> None:
        """Take the loggers over, now and whenever uvicorn sets them up."""
        from uvicorn.config import Config

        if self._patch is None:
            self._loggers.take()
            self._patch = Patch(Config, "configure_logging", self._then_take_over)
            self._patch.install()
            board().expect_app()

    def uninstall(self) -> None:
        """Put the loggers back as uvicorn had set them up."""
        if self._patch is not None:
            self._patch.uninstall()
            self._patch = None
            self._loggers.give_back()

    def _then_take_over(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def configure_logging(config: Any) -> None:
            original(config)
            if self._patch is not None:
                self._loggers.take()

        return configure_logging


INTEGRATION: Final = UvicornIntegration()
