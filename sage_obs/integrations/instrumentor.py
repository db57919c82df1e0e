"""Libraries whose spans OpenTelemetry's own instrumentors make, driven by the layer."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sage_obs.integrations.base import NotFoundError, UnusableLibraryError
from sage_obs.integrations.patch import Patch, Snapshot
from sage_obs.metrics.active import internal_error
from sage_obs.tracing.active import tracing

_EXTRA: Final = "pip install 'sage-obs[clients]'"


@dataclass(frozen=True, slots=True)
class Driven:
    """One of OpenTelemetry's instrumentors.

    `owners` are the modules and classes it changes, `guarded` the functions of it that look at a call before it is made, as
    `module:attribute` or `module:class.attribute`. A library that `covers` passes statements on to one that `yields`.
    """

    package: str
    kind: str
    owners: tuple[str, ...]
    guarded: tuple[str, ...] = ()
    covers: bool = False
    yields: bool = False


class InstrumentorIntegration:
    """Makes spans of what is done with a library, unless the application has its instrumentor do so already."""

    def __init__(self, name: str, versions: tuple[str, str], driven: Driven) -> None:
        self.name = self.module = name
        self.versions = versions
        self._driven = driven
        self._instrumentor: Any = None
        self._snapshot: Snapshot | None = None
        self._guards: tuple[Patch, ...] = ()
        self._spans: Any = None

    @property
    def distribution(self) -> str:
        """What pip installs."""
        return {"sqlalchemy": "SQLAlchemy"}.get(self.name, self.name)

    def prepare(self) -> None:
        """Raise NotFoundError where no spans are made or the application makes them, UnusableLibraryError without the instrumentor."""
        if getattr(tracing().spans, "provider", None) is None:
            raise NotFoundError("no spans are made, as there is no endpoint for them")
        if importlib.util.find_spec("opentelemetry.instrumentation") is None or importlib.util.find_spec(self._driven.package) is None:
            package = self._driven.package.removeprefix("opentelemetry.instrumentation.")
            raise UnusableLibraryError(f"opentelemetry-instrumentation-{package} is not installed.", hint=f"Install it: {_EXTRA}")
        if self._taken():
            raise NotFoundError("the application's own instrumentor makes its spans")

    def install(self) -> None:
        """Have the instrumentor patch the library, where nobody else has or is about to: importing it is what one does before."""
        if self._instrumentor is not None or self._taken():
            return
        instrumentor = getattr(importlib.import_module(self._driven.package), self._driven.kind)()
        if not instrumentor.is_instrumented_by_opentelemetry:
            self._drive(instrumentor)

    def _taken(self) -> bool:
        module = sys.modules.get(self._driven.package)
        if module is None or self._instrumentor is not None:
            return False
        kind = getattr(module, self._driven.kind, None)
        return kind is None or bool(kind().is_instrumented_by_opentelemetry)

    def _drive(self, instrumentor: Any) -> None:
        from sage_obs.integrations.client_spans import ClientSpans

        if self._spans is None:
            self._spans = ClientSpans(covers=self._driven.covers, yields=self._driven.yields)
        self._snapshot = Snapshot.of(_found(path) for path in self._driven.owners)
        instrumentor.instrument(tracer_provider=self._spans, skip_dep_check=True)
        self._instrumentor = instrumentor
        self._snapshot.changed()
        self._guards = tuple(_guard(self.name, path) for path in self._driven.guarded)
        for guard in self._guards:
            guard.install()
        self._spans.on = True

    def uninstall(self) -> None:
        """Have it take its patches back, and see to it that what was there before is there again."""
        if self._instrumentor is None or self._snapshot is None:
            return
        self._spans.on = False
        for guard in self._guards:
            guard.uninstall()
        instrumentor, snapshot = self._instrumentor, self._snapshot
        self._instrumentor = self._snapshot = None
        with snapshot.restoring():
            instrumentor.uninstrument()


def _found(path: str) -> Any:
    """A module, or a class in one, by `module` or `module:class`."""
    module, _, attribute = path.partition(":")
    found = importlib.import_module(module)
    return functools.reduce(getattr, attribute.split("."), found) if attribute else found


def _guard(library: str, path: str) -> Patch:
    """A patch of an instrumentor's function after which it returns "" where it raises: the call it looks at is the application's."""

    def harmless(original: Callable[..., str]) -> Callable[..., str]:
        @functools.wraps(original)
        def look(*args: Any, **kwargs: Any) -> str:
            try:
                return original(*args, **kwargs)
            except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
                internal_error(library, exc)
                return ""

        return look

    owner, _, attribute = path.rpartition(".") if "." in path.partition(":")[2] else path.rpartition(":")
    return Patch(_found(owner), attribute, harmless)
