"""Where the parts of the layer find the metrics to write to, whether instrument() has run or not."""

from __future__ import annotations

import logging
from typing import Final

from sage_obs.conventions import INTERNAL_ERRORS, Metric
from sage_obs.metrics.cells import Cell
from sage_obs.metrics.store import Store

_log = logging.getLogger("sage_obs")


class _Active:
    """The store in use. Before instrument() and after uninstrument() it is one that nobody reads."""

    __slots__ = ("reported", "reraise", "store")

    def __init__(self) -> None:
        self.store = Store()
        self.reported: set[str] = set()
        self.reraise = False


_active: Final = _Active()


def store() -> Store:
    """The store to write to now."""
    return _active.store


def series(metric: Metric, *labels: str) -> Cell:
    """The counter or gauge of the conventions with these label values, in the order of its labels, to `add` to or `set`.

    For what only the application knows: `series(LLM_RETRIES, "openai", "rate_limited").add()`. It is asked for anew each time, as
    instrument() and uninstrument() change where it stands.
    """
    return store().cell(metric, *labels)


def observe(metric: Metric, value: float, *labels: str) -> None:
    """Count a value, in the metric's unit, in the histogram of the conventions with these label values."""
    store().histogram(metric, *labels).observe(value)


def use(new: Store) -> None:
    """Write to this store from now on."""
    _active.store = new
    _active.reported = set()


def internal_error(component: str, error: Exception) -> None:
    """Count an error of the telemetry itself, and log it the first time a component has one.

    The application must not notice it; tests of the project have it raised again (see `sage_obs.testing`).
    """
    _active.store.cell(INTERNAL_ERRORS, component).add()
    if _active.reraise:
        raise error
    if component not in _active.reported:
        _active.reported.add(component)
        _log.warning("telemetry error in %s, logged once and counted from here on", component, exc_info=error)


def reraise_internal_errors(*, on: bool) -> None:
    """Whether internal errors are raised again, for the project's own tests."""
    _active.reraise = on
