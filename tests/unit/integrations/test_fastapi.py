from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

import sage_obs
from sage_obs.tracing import active
from sage_obs.tracing.active import Tracing
from sage_obs.tracing.otel import OtelSpans
from tests.support.asgi import answering, scope_of, serve

Start = Callable[..., sage_obs.Handle]
OFF = "fastapi.telemetry"


@pytest.mark.parametrize(
    ("telemetry", "spans", "off"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"tracer_provider": TracerProvider(shutdown_on_exit=False)}, True, False),
        ({"meter_provider": MeterProvider(shutdown_on_exit=False)}, True, False),
    ],
    ids=["spans", "no spans", "a tracer of its own", "metrics of its own"],
)
def test_fastapis_telemetry_is_off_where_it_would_only_repeat_our_spans(
    instrument: Start,
    telemetry: Any,
    spans: bool,  # noqa: FBT001 - a table
    off: bool,  # noqa: FBT001 - a table
) -> None:
    """Where the application reads it, or there are no spans of ours, it is left on."""
    instrument(libraries=["fastapi"])
    app = FastAPI(telemetry=telemetry)
    app.middleware_stack = answering(200)
    scope = scope_of("GET", "/")
    source = OtelSpans(TracerProvider(shutdown_on_exit=False)) if spans else None
    before, tracing = active.tracing(), Tracing(spans=source)
    active.use(tracing)
    try:
        asyncio.run(serve(app, scope))
    finally:
        active.use(before)
    assert (scope.get(OFF, "none") is None) == off
