"""What a server tells those who run it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hooks:
    """What happens when.

    `before` is awaited before the first connection is taken, and a signal ends it; `listening` is called as soon as connections are
    taken, `draining` when no more are to come, and `after` is awaited in the end.
    """

    before: Callable[[], Awaitable[None]]
    listening: Callable[[], None]
    draining: Callable[[], None]
    after: Callable[[], Awaitable[None]]
