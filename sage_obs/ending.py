"""The end of the process, as seen by those who see it coming where no exit handler will: a server that ends itself by a signal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final


class _Active:
    __slots__ = ("send",)

    def __init__(self) -> None:
        self.send: Callable[[], object] | None = None


_active: Final = _Active()


def use(send: Callable[[], object] | None) -> None:
    """Call this, which sends what waits, when the end is near; None calls nothing."""
    _active.send = send


def near() -> None:
    """The process ends in a moment: what waits is sent now, or never."""
    if _active.send is not None:
        _active.send()
