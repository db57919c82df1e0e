"""What a component of the layer is."""

from __future__ import annotations

from typing import Protocol


class Component(Protocol):
    """A part of the layer that is on or off by itself. Times are seconds."""

    @property
    def name(self) -> str:
        """Its name in status, in `disable` and as a label."""

    def start(self) -> str:
        """Begin; returns what it does. Raises SageObsError where it cannot."""

    def flush(self, timeout: float) -> bool:
        """Send what waits, within `timeout`; whether all of it went out."""

    def finish(self, timeout: float) -> bool:
        """The same as the process is about to end; nothing is put back."""

    def stop(self, timeout: float) -> None:
        """End, and put everything back; what waits is sent within `timeout`."""

    def restart_after_fork(self) -> None:
        """Be sane in a forked child, where the threads of the parent do not exist."""


class Unbuffered:
    """For components in which nothing ever waits to be sent."""

    def flush(self, timeout: float) -> bool:
        """Nothing waits."""
        del timeout
        return True

    def finish(self, timeout: float) -> bool:
        """Nothing waits."""
        del timeout
        return True

    def restart_after_fork(self) -> None:
        """Nothing to restart."""
