"""The distribution and the configurator that `opentelemetry-instrument` finds by their entry points."""

from __future__ import annotations

import logging
import os
from typing import Any

from opentelemetry import trace
from opentelemetry.instrumentation.dependencies import DependencyConflictError
from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined]  # its module opts out of types
from opentelemetry.sdk._configuration import _OTelSDKConfigurator
from opentelemetry.sdk.trace import TracerProvider

from sage_obs.distro.duplicates import driven, ours
from sage_obs.distro.exporters import forget_stock_default, installed, is_stock_default, needs_the_sdk, settle
from sage_obs.lifecycle import running
from sage_obs.metrics.active import internal_error

_log = logging.getLogger("sage_obs")


class SageDistro(BaseDistro):  # type: ignore[misc]
    """Lets the SDK have only what is installed, and one instrumentor's failure be its own."""

    def _configure(self, **kwargs: Any) -> None:
        del kwargs
        _settle()

    def load_instrumentor(self, entry_point: Any, **kwargs: Any) -> None:
        """Instrument, unless an integration of ours makes the same spans or uses it itself. Whatever it raises, the others follow."""
        if (name := _measured_by(entry_point.name)) is not None:
            _log.debug("instrumentor %s is left out: the integration %s makes its spans", entry_point.name, name)
            return
        try:
            super().load_instrumentor(entry_point, **kwargs)
        except (ImportError, DependencyConflictError):  # the loader goes on after these, and tells them better
            raise
        except Exception as exc:  # noqa: BLE001 - the instrumentor is anybody's, and it must not take the others along
            _log.warning("instrumentor %s failed: %s", entry_point.name, type(exc).__name__)
            internal_error("distro", exc)


def _measured_by(instrumentor: str) -> str | None:
    name, handle = ours(instrumentor) or driven(instrumentor), running()
    if name is None or handle is None:
        return None
    status = handle.status().get(name)
    return name if status is not None and status.on else None


class SageConfigurator(_OTelSDKConfigurator):
    """Has the SDK made only where it is asked for something that the layer does not do, and once."""

    def _configure(self, **kwargs: Any) -> None:
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return
        if isinstance(trace.get_tracer_provider(), TracerProvider):  # called again, or the application was first
            return
        if is_stock_default(os.environ, installed()):
            forget_stock_default(os.environ)
        _settle()
        if needs_the_sdk(os.environ):
            super()._configure(**kwargs)  # type: ignore[no-untyped-call]


def _settle() -> None:
    for one in settle(os.environ, installed()):
        _log.warning("%s asks for the exporter %s, which is not installed: it is left out", one.variable, one.name)
