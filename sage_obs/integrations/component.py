"""The integration of one library as a component of the layer."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys

from sage_obs.component import Unbuffered
from sage_obs.integrations.base import Integration, NotFoundError, UnusableLibraryError, load
from sage_obs.integrations.hook import ImportHook
from sage_obs.integrations.instrumentor import InstrumentorIntegration
from sage_obs.integrations.versions import check, distribution_of, is_builtin


def _installed(integration: Integration) -> bool:
    """Whether the library is there; several may share a package's name, such as `google`."""
    if importlib.util.find_spec(integration.module.partition(".")[0]) is None:
        return False
    if is_builtin(distribution_of(integration)):
        return True
    return any(True for _ in importlib.metadata.Distribution.discover(name=distribution_of(integration)))


class LibraryComponent(Unbuffered):
    """Installs an integration: now where the library is imported or `asked` for by name, else when the application imports it."""

    def __init__(self, name: str, hook: ImportHook, *, asked: bool) -> None:
        self.name = name
        self._hook = hook
        self._asked = asked
        self._integration: Integration | None = None

    def start(self) -> str:
        """Install, or wait for the import. Raises UnusableLibraryError for an unknown name, a missing library or an unknown version."""
        integration = load(self.name)
        if not self._asked and not _installed(integration):
            raise NotFoundError("not installed")
        version = check(integration)
        self._prepare(integration)
        self._integration = integration
        modules: tuple[str, ...] = getattr(integration, "modules", (integration.module,))
        if self._asked or not sys.modules.keys().isdisjoint(modules):
            integration.install()
            return f"{version}, installed"
        for module in modules:
            self._hook.when_imported(module, integration.install)
        return f"{version}, once it is imported"

    def _prepare(self, integration: Integration) -> None:
        """Whether there is what it needs besides its library, which is nobody's fault unless somebody asked for it."""
        if not isinstance(integration, InstrumentorIntegration):
            return
        try:
            integration.prepare()
        except UnusableLibraryError as exc:
            if self._asked:
                raise
            raise NotFoundError(str(exc)) from exc

    def stop(self, timeout: float) -> None:
        """Put the library back."""
        del timeout
        if self._integration is not None:
            self._integration.uninstall()
