"""Metrics as a component of the layer: the store in use, the recorder of requests and the collector in prometheus_client's registry."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sage_obs.component import Unbuffered
from sage_obs.conventions import BUILD_INFO, LOGS_DROPPED, RELEASE_TIMESTAMP, REQUEST_OVERHEAD, SPANS_DROPPED
from sage_obs.errors import UnavailableError
from sage_obs.metrics.store import Store
from sage_obs.settings import Settings

if TYPE_CHECKING:  # prometheus_client is loaded where metrics are wanted
    from sage_obs.metrics.collector import StoreCollector
    from sage_obs.metrics.exposition import Exposition


def store_for(settings: Settings) -> Store:
    """A store with the settings' label budget and objective, which says what runs here."""
    objective = settings.overhead_objective
    store = Store(budget=settings.label_budget, objectives=((REQUEST_OVERHEAD, (objective, 4 * objective)),))
    store.cell(BUILD_INFO, settings.service_name, settings.version, settings.revision, platform.python_version()).set(1)
    store.cell(RELEASE_TIMESTAMP, settings.version).set(time.time())
    store.cell(SPANS_DROPPED)
    store.cell(LOGS_DROPPED)
    return store


class MetricsComponent(Unbuffered):
    """Puts a store into prometheus_client's registry; `refresh` runs before each scrape."""

    name = "metrics"

    def __init__(self, store: Store, *, refresh: Callable[[], None]) -> None:
        self._store = store
        self._refresh = refresh
        self._collector: StoreCollector | None = None
        self._take_back: Callable[[], None] | None = None

    def start(self) -> str:
        """Register. Raises UnavailableError where the application has metrics of the same names."""
        from prometheus_client import REGISTRY

        from sage_obs.metrics.collector import StoreCollector

        collector = StoreCollector(self._store, refresh=self._refresh)
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
        return "in prometheus_client's registry"

    def expose(self, *, accept: str, accept_encoding: str) -> Exposition:
        """A scrape's answer; where ours could not be registered, the application's metrics alone."""
        from sage_obs.metrics.exposition import expose

        return expose(accept=accept, accept_encoding=accept_encoding, ours=self._collector)

    def stop(self, timeout: float) -> None:
        """Take the collector out."""
        del timeout
        self._collector = None
        if self._take_back is not None:
            self._take_back()
            self._take_back = None


def _without_created() -> Callable[[], None]:
    """Leave out prometheus_client's `_created` series, half as many lines again, and return what brings them back."""
    from prometheus_client import disable_created_metrics, enable_created_metrics, metrics

    was_on = getattr(metrics, "_use_created", False)
    disable_created_metrics()  # type: ignore[no-untyped-call]
    return enable_created_metrics if was_on else disable_created_metrics
