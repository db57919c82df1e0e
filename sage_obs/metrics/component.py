"""Metrics as a component of the layer: the store in use, the recorder of requests and the collector in prometheus_client's registry."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sage_obs.component import Unbuffered
from sage_obs.conventions import BUILD_INFO, LOGS_DROPPED, RELEASE_TIMESTAMP, REQUEST_OVERHEAD, SPANS_DROPPED
from sage_obs.errors import UnavailableError
from sage_obs.metrics.push import target
from sage_obs.metrics.sharing import Sharing
from sage_obs.metrics.store import Store
from sage_obs.settings import Settings

if TYPE_CHECKING:  # prometheus_client is loaded where metrics are wanted
    from sage_obs.metrics.collector import StoreCollector
    from sage_obs.metrics.exposition import Exposition


def store_for(settings: Settings) -> Store:
    """A store with the settings' label budget and objective, which says what runs here."""
    store = _empty(settings, overflows=True, pushes=settings.metrics and bool(target(settings, os.environ).url))
    store.cell(BUILD_INFO, settings.service_name, settings.version, settings.revision, platform.python_version()).set(1)
    store.cell(RELEASE_TIMESTAMP, settings.version).set(time.time())
    store.cell(SPANS_DROPPED)
    store.cell(LOGS_DROPPED)
    return store


def _empty(settings: Settings, *, overflows: bool, pushes: bool = False) -> Store:
    objectives = ((REQUEST_OVERHEAD, (settings.overhead_objective, 4 * settings.overhead_objective)),)
    return Store(budget=settings.label_budget, objectives=objectives, overflows=overflows, pushes=pushes)


def sharing_for(settings: Settings, store: Store) -> Sharing:
    """How the store is seen beside those of other processes."""
    return Sharing(store, port=settings.metrics_port, configured=settings.multiprocess_dir, empty=lambda: _empty(settings, overflows=False))


class MetricsComponent(Unbuffered):
    """Puts a store into prometheus_client's registry; `refresh` runs before each scrape.

    `on_company` is called when a process that was alone finds out that it has children which share.
    """

    name = "metrics"

    def __init__(self, store: Store, sharing: Sharing, *, refresh: Callable[[], None], on_company: Callable[[], None]) -> None:
        self.sharing = sharing
        self._store = store
        self._on_company = on_company
        self._refresh = refresh
        self._collector: StoreCollector | None = None
        self._take_back: Callable[[], None] | None = None

    def start(self) -> str:
        """Register. Raises UnavailableError where the application has metrics of the same names."""
        from prometheus_client import REGISTRY

        from sage_obs.metrics.collector import StoreCollector

        collector = StoreCollector(self._store, refresh=self._refresh, sharing=self.sharing)
        try:
            REGISTRY.register(collector)
        except ValueError as exc:
            raise UnavailableError(f"Cannot register the metrics: {exc}.", hint="Rename the application's metrics of these names.") from exc
        self._collector = collector
        restore = _without_created()

        def take_back() -> None:
            REGISTRY.unregister(collector)
            restore()

        self._take_back = take_back
        try:
            self.sharing.start()
        except BaseException:
            self.stop(0.0)
            raise
        return self.words

    @property
    def words(self) -> str:
        """Where the metrics are seen."""
        together = "together with other processes" if self.sharing.on else self.sharing.why
        return f"in prometheus_client's registry{together and ', '}{together}"

    def look(self) -> None:
        """Somebody has come to the metrics port: see whether this process has company."""
        if self.sharing.look():
            self._on_company()

    def refresh(self) -> None:
        """Bring the gauges up to date that others read."""
        self._refresh()

    def expose(self, *, accept: str, accept_encoding: str) -> Exposition:
        """A scrape's answer; where ours could not be registered, the application's metrics alone."""
        from sage_obs.metrics.exposition import expose

        return expose(accept=accept, accept_encoding=accept_encoding, ours=self._collector)

    def stop(self, timeout: float) -> None:
        """Take the collector out."""
        del timeout
        self._collector = None
        self.sharing.stop()
        if self._take_back is not None:
            self._take_back()
            self._take_back = None

    def finish(self, timeout: float) -> bool:
        """The process ends: remove what only this run needs."""
        self.sharing.leave()
        return super().finish(timeout)

    def restart_after_fork(self) -> None:
        """Count from zero in a forked child, beside its parent."""
        self.sharing.restart_after_fork()


def _without_created() -> Callable[[], None]:
    """Leave out prometheus_client's `_created` series, half as many lines again, and return what brings them back."""
    from prometheus_client import disable_created_metrics, enable_created_metrics, metrics

    was_on = getattr(metrics, "_use_created", False)
    disable_created_metrics()  # type: ignore[no-untyped-call]
    return enable_created_metrics if was_on else disable_created_metrics
