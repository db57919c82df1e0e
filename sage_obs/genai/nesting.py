"""Who counts a call of a model or a tool where one library calls another, as each is to be counted once.

Of a model the outermost counts, unless it only steps in for those below, which know more of the call. Of a tool the outermost does.
"""

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


_stepping_in: Final[ContextVar[Below | None]] = ContextVar("sage_obs_below", default=None)
_using: Final[ContextVar[Using | None]] = ContextVar("sage_obs_using", default=None)


class Below:
    """Inside a call that a library's integration is to count only where nothing that it calls is counted itself."""

    __slots__ = ("_around", "heard")

    def __init__(self) -> None:
        self._around: Below | None = None
        self.heard = False

    def __enter__(self) -> Self:
        self._around = _stepping_in.get()
        _stepping_in.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if _stepping_in.get() is self:
            _stepping_in.set(self._around)


def counting_here() -> None:
    """A call is counted here; whoever steps in around it need not."""
    found = _stepping_in.get()
    if found is not None:
        found.heard = True


class Using:
    """Around a call of a tool that is counted, under this name."""

    __slots__ = ("_around", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._around: Using | None = None

    def __enter__(self) -> Self:
        self._around = _using.get()
        _using.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if _using.get() is self:
            _using.set(self._around)

    @property
    def name(self) -> str:
        """The tool's name."""
        return self._name


def used(name: str) -> bool:
    """Whether a call made here is of the tool that the innermost library around it counts already."""
    found = _using.get()
    return found is not None and found.name == name
