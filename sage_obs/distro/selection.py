"""Which distribution OpenTelemetry's command uses: by its variables, else the first that is found."""

from __future__ import annotations

import importlib.metadata
from collections.abc import MutableMapping
from typing import Final

NAME: Final = "sage_obs"
"""Ours, in each of the groups."""
COMMAND: Final = "opentelemetry-instrument"
VARIABLES: Final = {"opentelemetry_distro": "OTEL_PYTHON_DISTRO", "opentelemetry_configurator": "OTEL_PYTHON_CONFIGURATOR"}
"""Group of entry points → the variable that names one of them."""
STOCK: Final = frozenset({"distro", "configurator"})
"""The names in the package opentelemetry-distro, which comes with us, and fails where nothing is set and gRPC is not installed."""


def found(group: str) -> list[str]:
    """The names in a group, in the order in which OpenTelemetry's loader meets them."""
    return [entry.name for entry in importlib.metadata.entry_points(group=group)]


def contested(group: str) -> bool:
    """Whether there is a third one, which somebody may have installed in order to use it."""
    return bool(set(found(group)) - STOCK - {NAME})


def select(environ: MutableMapping[str, str]) -> None:
    """Select ours where nothing is selected and there is only the stock one beside it."""
    if not any(environ.get(variable) for variable in VARIABLES.values()) and not any(map(contested, VARIABLES)):
        environ.update(dict.fromkeys(VARIABLES.values(), NAME))
