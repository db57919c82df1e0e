"""Who counts a call to a model where one library calls another: the outermost alone, or its tokens would be counted twice."""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import Final, Self

_counting: Final[ContextVar[Counting | None]] = ContextVar("sage_obs_counting", default=None)


class Counting:
    """Around what makes a call that is counted here.

    What is over says so itself and stays where it is: a task that was started inside and goes on afterwards makes calls of its own again,
    and nothing is set while the garbage collector closes an abandoned generator. It may run in the middle of another `set` of the same
    context, which CPython 3.11 does not survive.
    """

    __slots__ = ("_around", "_open")

    def __init__(self) -> None:
        self._around: Counting | None = None
        self._open = False

    @property
    def under_way(self) -> bool:
        """Whether this, or what it stands in, counts what is called now."""
        return self._open or (self._around is not None and self._around.under_way)

    def __enter__(self) -> Self:
        around = _counting.get()
        self._around = around if around is not None and around.under_way else None
        self._open = True
        _counting.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open = False


def counted() -> bool:
    """Whether a call made here is counted by something around it."""
    found = _counting.get()
    return found is not None and found.under_way
