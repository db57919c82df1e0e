"""Patch a library when the application imports it, so that nothing is imported that the application does not use."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from sage_obs.metrics.active import internal_error


class ImportHook(MetaPathFinder):
    """Calls back once, right after a module has been imported; finding and loading it is left to the others."""

    def __init__(self) -> None:
        self._waiting: dict[str, Callable[[], None]] = {}
        self._busy: set[str] = set()

    def when_imported(self, module: str, then: Callable[[], None]) -> None:
        """Call `then` after `module` is imported; at once where it is already."""
        if module in sys.modules:
            then()
            return
        self._waiting[module] = then
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Forget everything that is still waited for."""
        self._waiting.clear()
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module that is waited for by asking the other finders, and have its loader report."""
        del path, target
        if fullname not in self._waiting or fullname in self._busy:
            return None
        self._busy.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._busy.discard(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Reporting(spec.loader, lambda: self._imported(fullname))
        return spec

    def _imported(self, fullname: str) -> None:
        then = self._waiting.pop(fullname, None)
        if then is None:
            return
        try:
            then()
        except Exception as exc:  # noqa: BLE001 - the application's import must not fail for a patch
            internal_error("integrations", exc)


class _Reporting(Loader):
    """A loader that says when it has loaded, and is otherwise the one it stands for."""

    def __init__(self, loader: Loader, loaded: Callable[[], None]) -> None:
        self._loader = loader
        self._loaded = loaded

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the other loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module with its own loader in place, then report."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._loaded()
