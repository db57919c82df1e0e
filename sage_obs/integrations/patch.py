"""Replacing an attribute and putting it back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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

    def put(self, value: object) -> None:
        """Have `value` there, which is nothing where there was nothing."""
        if self.there() is value:
            return
        if value is _MISSING:
            delattr(self.owner, self.attribute)
        else:
            setattr(self.owner, self.attribute, value)


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


class Snapshot:
    """The attributes of some classes and modules, as they were before somebody else's code changes them."""

    def __init__(self, before: tuple[tuple[type | ModuleType, dict[str, object]], ...]) -> None:
        self._before = before
        self._placed: list[tuple[Replaced, object]] = []

    @classmethod
    def of(cls, owners: Iterable[type | ModuleType]) -> Snapshot:
        """What they have now."""
        return cls(tuple((owner, dict(vars(owner))) for owner in owners))

    def changed(self) -> None:
        """Note what is there instead by now; what was added to a module, such as one imported meanwhile, stays."""
        for owner, before in self._before:
            for attribute, now in dict(vars(owner)).items():
                was = before.get(attribute, _MISSING)
                if now is not was and not (was is _MISSING and isinstance(owner, ModuleType)):
                    self._placed.append((Replaced(owner, attribute, was), now))
        for replaced in _recorders:
            replaced.extend(one for one, _ in self._placed)

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Around the code that takes its changes back: afterwards what was is there, or what somebody else has placed since."""
        meanwhile = [(one, _MISSING if one.there() is placed else one.there()) for one, placed in self._placed]
        try:
            yield
        finally:
            for one, theirs in meanwhile:
                one.put(one.original if theirs is _MISSING else theirs)


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
