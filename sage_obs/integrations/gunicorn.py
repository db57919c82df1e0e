"""gunicorn: its loggers go through ours, and its access log is silenced, as ours has a line for every request.

It sets them up before it forks its workers and again when it reloads its configuration; only processes that call instrument() are
touched, which are the workers unless the application is preloaded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from sage_obs.integrations.loggers import SILENT, TO_ROOT, TakenOver
from sage_obs.integrations.patch import Patch, Patches


class GunicornIntegration:
    """Routes gunicorn's error logger to the root logger and silences its access log."""

    name = "gunicorn"
    module = "gunicorn.glogging"
    versions = ("21.2", "28")

    def __init__(self) -> None:
        self._patches = Patches()
        self._loggers = TakenOver({"gunicorn.error": TO_ROOT, "gunicorn.access": SILENT})

    def install(self) -> None:
        """Take the loggers over, now and whenever gunicorn sets them up."""
        from gunicorn.glogging import Logger

        if self._patches.install(Patch(Logger, "setup", self._then_take_over)):
            self._loggers.take()

    def uninstall(self) -> None:
        """Put the loggers back as gunicorn had set them up."""
        if self._patches.uninstall():
            self._loggers.give_back()

    def _then_take_over(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def setup(logger: Any, cfg: Any) -> None:
            original(logger, cfg)
            if self._patches:
                self._loggers.take()

        return setup


INTEGRATION: Final = GunicornIntegration()
