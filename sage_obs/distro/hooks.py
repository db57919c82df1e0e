"""What `opentelemetry-instrument` calls before and after the instrumentors, whichever distribution is in use."""

from __future__ import annotations

import logging

from sage_obs.distro.autostart import start

_log = logging.getLogger("sage_obs")


def pre_instrument() -> None:
    """Start the layer on the providers there are. What it raised would keep every instrumentor out, so nothing is."""
    try:
        start()
    except Exception:  # noqa: BLE001 - the program and the instrumentors go on without us
        _log.warning("telemetry is off", exc_info=True)


def post_instrument() -> None:
    """Say what is on; the layer runs since `pre_instrument`, and a second call changes nothing."""
    handle = start()
    if handle is not None:
        _log.debug("instrumented by OpenTelemetry's command", extra={"status": {name: str(one) for name, one in handle.status().items()}})
