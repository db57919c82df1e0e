"""What `opentelemetry-instrument` calls before and after the instrumentors, whichever distribution is in use."""

from __future__ import annotations

import importlib.metadata
import logging
import sys

from sage_obs.distro.autostart import start
from sage_obs.distro.duplicates import ours
from sage_obs.metrics.active import internal_error

_log = logging.getLogger("sage_obs")


def pre_instrument() -> None:
    """Start the layer on the providers there are. What it raised would keep every instrumentor out, so nothing is."""
    try:
        start()
    except Exception:  # noqa: BLE001 - the program and the instrumentors go on without us
        _log.warning("telemetry is off", exc_info=True)


def post_instrument() -> None:
    """Switch off the instrumentors that make our spans again, which another distribution than ours has let through."""
    handle = start()
    if handle is None:
        return
    status = handle.status()
    for entry in importlib.metadata.entry_points(group="opentelemetry_instrumentor"):
        name = ours(entry.name)
        if name is not None and name in status and status[name].on and entry.module in sys.modules:
            _switch_off(entry, name)


def _switch_off(entry: importlib.metadata.EntryPoint, name: str) -> None:
    try:
        instrumentor = entry.load()()
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()
            _log.debug("instrumentor %s is switched off: the integration %s makes its spans", entry.name, name)
    except Exception as exc:  # noqa: BLE001 - the instrumentor is anybody's; spans that come twice are better than none
        internal_error("distro", exc)
