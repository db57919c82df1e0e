"""A server's own loggers in our hands, and given back as they were."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class LoggerState:
    """A logger's handlers and whether its records go on to the root logger's."""

    handlers: tuple[logging.Handler, ...]
    propagate: bool

    @classmethod
    def of(cls, name: str) -> LoggerState:
        """The logger as it is now."""
        logger = logging.getLogger(name)
        return cls(tuple(logger.handlers), logger.propagate)

    def put(self, name: str) -> None:
        """Make the logger so."""
        logger = logging.getLogger(name)
        logger.handlers[:] = self.handlers
        logger.propagate = self.propagate


TO_ROOT: Final = LoggerState((), propagate=True)
SILENT: Final = LoggerState((), propagate=False)
"""A logger without a handler anywhere costs its server nothing."""


class TakenOver:
    """Loggers that are as we want them from `take` on, which may come again after their owner has set them up anew."""

    def __init__(self, ours: Mapping[str, LoggerState]) -> None:
        self._ours = ours
        self._found: dict[str, LoggerState] = {}

    def take(self) -> None:
        """Make them ours; what their owner made of them since the last time is what `give_back` restores."""
        for name, ours in self._ours.items():
            found = LoggerState.of(name)
            if found != ours or name not in self._found:
                self._found[name] = found
            ours.put(name)

    def give_back(self) -> None:
        """Put them back as their owner had set them up."""
        for name, state in self._found.items():
            state.put(name)
        self._found = {}
