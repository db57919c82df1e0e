"""Replacing an attribute and putting it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

_MISSING = object()


@dataclass(frozen=True, slots=True)
class Replaced:
    """An attribute that a patch has replaced, and what was there."""

    owner: type | ModuleType
    attribute: str
    original: object

    def there(self) -> object:
        """What is there now."""
        return vars(self.owner).get(self.attribute, _MISSING)


_recorders: Final[list[list[Replaced]]] = []


@contextmanager
def recording() -> Iterator[list[Replaced]]:
    """Everything that patches replace within the block, for tests that everything comes back."""
    replaced: list[Replaced] = []
    _recorders.append(replaced)
    try:
        yield replaced
    finally:
        _recorders.remove(replaced)


class Patch:
    """One attribute of one class or module. A missing attribute is skipped: the library has changed, the application goes on."""

    def __init__(self, owner: type | ModuleType, attribute: str, wrap: Callable[[Any], Any]) -> None:
        self._owner = owner
        self._attribute = attribute
        self._wrap = wrap
        self._original: Any = _MISSING
        self._placed: Any = _MISSING

    def install(self) -> None:
        """Put the wrapped attribute in place, once."""
        if self._original is _MISSING and (own := self._owner.__dict__.get(self._attribute, _MISSING)) is not _MISSING:
            self._original, self._placed = own, self._wrap(own)
            setattr(self._owner, self._attribute, self._placed)
            for replaced in _recorders:
                replaced.append(Replaced(self._owner, self._attribute, own))

    def uninstall(self) -> None:
        """Put the original back, unless somebody else has wrapped ours since: then theirs keeps calling ours, which does nothing."""
        if self._original is not _MISSING and self._owner.__dict__.get(self._attribute) is self._placed:
            setattr(self._owner, self._attribute, self._original)
        self._original = self._placed = _MISSING


class Patches:
    """What one integration has put in place: all of it, once, or nothing. True while it is there."""

    def __init__(self) -> None:
        self._placed: tuple[Patch, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._placed)

    def install(self, *patches: Patch) -> bool:
        """Put these in place; nothing happens where some are already. Whether it was done."""
        if self._placed:
            return False
        self._placed = patches
        for patch in patches:
            patch.install()
        return True

    def uninstall(self) -> bool:
        """Put everything back. Whether there was something."""
        placed, self._placed = self._placed, ()
        for patch in placed:
            patch.uninstall()
        return bool(placed)
