"""The standard library's logging: what sets the root logger up anew leaves our handler there.

`dictConfig`, `fileConfig` and `basicConfig(force=True)` throw out every handler they find, and where the layer starts first, as under
`sage-obs run`, ours is among them. Those that a program sets up to write to stdout or stderr rest then, as the ones before them do; files
are written to as ever. Who takes our handler out of the root logger by itself has it out.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, Final

from sage_obs import records
from sage_obs.integrations.patch import Patch, Patches
from sage_obs.integrations.terminal import is_terminal
from sage_obs.metrics.active import internal_error

_OWN: Final = logging.getLogger("sage_obs")
"""What the layer says of itself, which a configuration disables that does not know of it."""


class LoggingIntegration:
    """Keeps our handler at the root logger through configurations of the application's."""

    name = "logging"
    module = "logging"
    versions = ("3.11", "4")

    def __init__(self) -> None:
        self._patches = Patches()

    def install(self) -> None:
        """Patch what the three functions go through."""
        from logging import config

        self._patches.install(
            Patch(config.DictConfigurator, "configure", _keeping),
            Patch(config, "_install_loggers", _keeping),
            Patch(logging, "basicConfig", _keeping),
        )

    def uninstall(self) -> None:
        """Put them back."""
        self._patches.uninstall()


def _keeping(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def configure(*args: Any, **kwargs: Any) -> Any:
        ours, disabled = records.handler(), _OWN.disabled
        there = ours is not None and ours in logging.root.handlers
        try:
            return original(*args, **kwargs)
        finally:
            if there and ours is records.handler():
                _OWN.disabled = disabled
                _return()

    return configure


def _return() -> None:
    try:
        records.set_up_anew(_is_on_terminal)
    except Exception as exc:  # noqa: BLE001 - the telemetry must not break the application
        internal_error("logging", exc)


def _is_on_terminal(handler: logging.Handler) -> bool:
    """Whether it writes to stdout or stderr, by itself or, as rich's does, with a console."""
    streams = (getattr(handler, "stream", None), getattr(getattr(handler, "console", None), "file", None))
    return any(is_terminal(stream) for stream in streams if stream is not None)


INTEGRATION: Final = LoggingIntegration()
