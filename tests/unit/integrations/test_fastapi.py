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
    before, tracing = active.tracing(), Tracing(spans=_NoSpans() if spans else None)
    active.use(tracing)
    try:
        asyncio.run(serve(app, scope))
    finally:
        active.use(before)
    assert (scope.get(OFF, "none") is None) == off


class _NoSpans:
    """A source of spans that makes none that anybody sees."""

    def server(self, **_: Any) -> Any:
        """A span that does nothing."""
        return _NoSpan()

    client = internal = server

    def unrecorded(self, *_: Any) -> Any:
        """The same."""
        return _NoSpan()

    def current(self) -> None:
        """There is none."""


class _NoSpan:
    recorded = False
    ids = ("0" * 31 + "1", "0" * 15 + "1", False)

    def end(self, **_: Any) -> None:
        """Do nothing."""

    def enter(self) -> None:
        """Do nothing."""

    def leave(self) -> None:
        """Do nothing."""
