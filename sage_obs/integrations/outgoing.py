"""The trace in the headers of a call made here."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final

from sage_obs.metrics.active import internal_error
from sage_obs.tracing.active import tracing

_HEADER: Final = "traceparent"


def inject(library: str, headers: MutableMapping[str, Any]) -> None:
    """Add `traceparent` where there is a trace to continue, unless the application has done so. `headers` do not mind the case."""
    try:
        if (header := tracing().outgoing()) and _HEADER not in headers:
            headers[_HEADER] = header
    except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
        internal_error(library, exc)
