"""The event loops that do the service's work, for whoever watches them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final
from weakref import WeakSet

Follower = Callable[[asyncio.AbstractEventLoop], None]


class _Seen:
    """The loops that were seen, for as long as they live, and those who are told of new ones."""

    __slots__ = ("followers", "loops")

    def __init__(self) -> None:
        self.loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        self.followers: tuple[Follower, ...] = ()


_seen: Final = _Seen()


def seen(loop: asyncio.AbstractEventLoop) -> None:
    """Work is done on this loop; from the second time on that is a lookup. One that cannot be kept track of is let be."""
    try:
        if loop in _seen.loops:
            return
        _seen.loops.add(loop)
    except TypeError:  # the loop is somebody's own, without weak references
        return
    for follower in _seen.followers:
        follower(loop)


def seen_here() -> None:
    """Work is done on the loop that runs here. There may be none: other libraries run coroutines too."""
    with suppress(RuntimeError):
        seen(asyncio.get_running_loop())


def follow(follower: Follower) -> None:
    """Tell this one too of every loop, those seen before included."""
    _seen.followers = (*_seen.followers, follower)
    for loop in list(_seen.loops):
        follower(loop)


def unfollow(follower: Follower) -> None:
    """Tell this one no more."""
    _seen.followers = tuple(one for one in _seen.followers if one != follower)
