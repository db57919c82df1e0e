"""SQLAlchemy: statements of engines that are made while the layer is on, over whatever driver.

An engine's statement has one span, SQLAlchemy's: it knows the database for every driver, while of the drivers only some have spans. So the
driver's gives way for as long as the engine's is open; what the application does with the driver itself, and what the driver asks on its
own account, keeps its span.
"""

from __future__ import annotations

from typing import Final

from sage_obs.integrations.instrumentor import Driven, InstrumentorIntegration

INTEGRATION: Final = InstrumentorIntegration(
    "sqlalchemy",
    ("1.4.30", "2.2"),
    Driven(
        package="opentelemetry.instrumentation.sqlalchemy",
        kind="SQLAlchemyInstrumentor",
        owners=("sqlalchemy", "sqlalchemy.engine", "sqlalchemy.engine.create", "sqlalchemy.engine.base:Engine", "sqlalchemy.ext.asyncio"),
        covers=True,
    ),
)
