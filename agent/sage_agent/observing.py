"""The observability layer of this process, switched on."""

from __future__ import annotations

import importlib.metadata
import logging
import sys
from dataclasses import fields, replace

import sage_obs
from sage_obs.errors import UnavailableError
from sage_obs.settings import OPTIONS, Settings


def switch_on(layer: Settings) -> sage_obs.Handle:
    """Instrument this process; profiles are served unless that was switched off, and metrics and health have to be.

    Raises UnavailableError where those cannot be: nobody could see it run.
    """
    if layer.sources["version"].source == "default":
        layer = replace(layer, version=importlib.metadata.version("sage-obs"))
    values = {field.name: getattr(layer, field.name) for field in fields(layer) if field.name != "sources"}
    chosen = {name: value for name, value in values.items() if layer.sources[name].source != "default" or value != OPTIONS[name].default}
    handle = sage_obs.instrument(**chosen)
    status = handle.status()
    if "logs" not in status or not status["logs"].on:
        log_plainly()
    if "ops" in status and not status["ops"].on and (layer.metrics or layer.health):
        raise UnavailableError(status["ops"].why, hint="SAGE_OBSERVABILITY_ENABLED=false runs the agent unobserved.")
    return handle


def log_plainly() -> None:
    """Without the layer's log lines, the start line and failures still go to stdout, as JSON."""
    from pythonjsonlogger.json import JsonFormatter

    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter("%(levelname)s %(name)s %(message)s", rename_fields={"levelname": "level", "name": "logger"}))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
