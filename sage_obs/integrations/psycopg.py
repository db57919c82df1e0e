"""psycopg 3: statements, sync and async, of connections that are made while the layer is on."""

from __future__ import annotations

from typing import Final

from sage_obs.integrations.instrumentor import Driven, InstrumentorIntegration

_PACKAGE: Final = "opentelemetry.instrumentation.psycopg"

INTEGRATION: Final = InstrumentorIntegration(
    "psycopg",
    ("3.1", "4"),
    Driven(
        package=_PACKAGE,
        kind="PsycopgInstrumentor",
        owners=("psycopg", "psycopg:Connection", "psycopg:AsyncConnection"),
        guarded=(f"{_PACKAGE}:CursorTracer.get_operation_name", f"{_PACKAGE}:CursorTracer.get_statement"),
        yields=True,
    ),
)
