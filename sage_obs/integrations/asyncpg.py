"""asyncpg: statements of connections, prepared statements and cursors, whenever they were made."""

from __future__ import annotations

from typing import Final

from sage_obs.integrations.instrumentor import Driven, InstrumentorIntegration

INTEGRATION: Final = InstrumentorIntegration(
    "asyncpg",
    ("0.27", "1"),
    Driven(
        package="opentelemetry.instrumentation.asyncpg",
        kind="AsyncPGInstrumentor",
        owners=(
            "asyncpg.connection:Connection",
            "asyncpg.cursor:Cursor",
            "asyncpg.cursor:CursorIterator",
            "asyncpg.prepared_stmt:PreparedStatement",
        ),
        yields=True,
    ),
)
