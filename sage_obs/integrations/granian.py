"""granian: its loggers go through ours, and its access log is silenced, as ours has a line for every request.

It sets them up in its main process and in each worker, there before the application is imported.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, Final

from sage_obs.integrations.loggers import SILENT, TO_ROOT, TakenOver
from sage_obs.integrations.patch import Patch, Patches

_FUNCTION: Final = "configure_logging"
_MODULES: Final = ("granian.log", "granian.server.common", "granian.server.mp")
"""Where the function is, and where it has been imported to."""


class GranianIntegration:
    """Routes granian's logger to the root logger and silences its access log."""

    name = "granian"
    module = "granian.log"
    versions = ("2.0", "3")

    def __init__(self) -> None:
        self._patches = Patches()
        self._loggers = TakenOver({"_granian": TO_ROOT, "granian.access": SILENT})

    def install(self) -> None:
        """Take the loggers over, now and whenever granian sets them up."""
        import granian.log  # noqa: F401 - it is patched below

        places = [sys.modules[name] for name in _MODULES if name in sys.modules]
        if self._patches.install(*(Patch(place, _FUNCTION, self._then_take_over) for place in places)):
            self._loggers.take()

    def uninstall(self) -> None:
        """Put the loggers back as granian had set them up."""
        if self._patches.uninstall():
            self._loggers.give_back()

    def _then_take_over(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def configure_logging(*args: Any, **kwargs: Any) -> None:
            original(*args, **kwargs)
            if self._patches:
                self._loggers.take()

        return configure_logging


INTEGRATION: Final = GranianIntegration()
