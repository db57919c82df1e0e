"""uvicorn: its loggers go through ours, and its access log is silenced, as ours has a line for every request.

uvicorn sets its loggers up when its Config is made, which may be before or after instrument(); both are covered.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sage_obs.health.board import board
from sage_obs.integrations.patch import Patch


@dataclass(frozen=True, slots=True)
class _State:
    """A logger as it was found."""

    handlers: tuple[logging.Handler, ...]
    propagate: bool

    @classmethod
    def of(cls, name: str) -> _State:
        logger = logging.getLogger(name)
        return cls(tuple(logger.handlers), logger.propagate)

    def put_back(self, name: str) -> None:
        logger = logging.getLogger(name)
        logger.handlers[:] = self.handlers
        logger.propagate = self.propagate


_TO_ROOT: Final = _State((), propagate=True)
_OURS: Final = {
    "uvicorn": _TO_ROOT,
    "uvicorn.error": _TO_ROOT,
    "uvicorn.asgi": _TO_ROOT,
    "uvicorn.access": _State((), propagate=False),
}
"""How the loggers are while the integration is installed; one without a handler anywhere costs uvicorn nothing."""


class UvicornIntegration:
    """Routes uvicorn's loggers to the root logger and silences its access log."""

    name = "uvicorn"
    module = "uvicorn.config"
    versions = ("0.20", "1")

    def __init__(self) -> None:
        self._patch: Patch | None = None
        self._found: dict[str, _State] = {}

    def install(self) -> None:
        """Take the loggers over, now and whenever uvicorn sets them up."""
        from uvicorn.config import Config

        if self._patch is None:
            self._take_over()
            self._patch = Patch(Config, "configure_logging", self._then_take_over)
            self._patch.install()
            board().expect_app()

    def uninstall(self) -> None:
        """Put the loggers back as uvicorn had set them up."""
        if self._patch is not None:
            self._patch.uninstall()
            self._patch = None
            for name, state in self._found.items():
                state.put_back(name)
            self._found = {}

    def _then_take_over(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def configure_logging(config: Any) -> None:
            original(config)
            if self._patch is not None:
                self._take_over()

        return configure_logging

    def _take_over(self) -> None:
        for name, ours in _OURS.items():
            found = _State.of(name)
            if found != ours or name not in self._found:
                self._found[name] = found
            ours.put_back(name)


INTEGRATION: Final = UvicornIntegration()
