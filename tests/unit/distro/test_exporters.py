from __future__ import annotations

import pytest

from sage_obs.distro.duplicates import driven, ours
from sage_obs.distro.exporters import installed, is_stock_default, missing, needs_the_sdk, settle
from sage_obs.integrations.base import load
from sage_obs.integrations.instrumentor import InstrumentorIntegration

HTTP_ONLY = {signal: frozenset({"console", "otlp_proto_http"}) for signal in ("traces", "metrics", "logs")}
GRPC_ONLY = {signal: frozenset({"otlp_proto_grpc"}) for signal in ("traces", "metrics", "logs")}
STOCK = {f"OTEL_{signal}_EXPORTER": "otlp" for signal in ("TRACES", "METRICS", "LOGS")} | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}


@pytest.mark.parametrize(
    ("said", "protocol", "there", "after"),
    [
        ("otlp", "", HTTP_ONLY, "otlp"),
        ("otlp", "", GRPC_ONLY, "otlp"),
        ("otlp", "grpc", HTTP_ONLY, "none"),
        ("zipkin, console", "", HTTP_ONLY, "console"),
        ("none", "", HTTP_ONLY, "none"),
        ("otlp_proto_grpc,otlp", "http/protobuf", HTTP_ONLY, "otlp"),
    ],
)
def test_what_is_not_installed_is_left_out(said: str, protocol: str, there: dict[str, frozenset[str]], after: str) -> None:
    """What is installed stays as it was named, OTLP without a protocol gets the one that is there, and nothing is missing afterwards."""
    environ = {"OTEL_TRACES_EXPORTER": said} | ({"OTEL_EXPORTER_OTLP_PROTOCOL": protocol} if protocol else {})
    left_out = settle(environ, there)
    assert environ["OTEL_TRACES_EXPORTER"] == after
    assert bool(left_out) is (after != said)
    assert list(missing(environ, there)) == []


def test_the_protocol_of_one_signal_beats_the_common_one() -> None:
    """Traces by HTTP are there although everything else is by gRPC."""
    environ = STOCK | {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}
    assert {one.signal for one in missing(environ, HTTP_ONLY)} == {"metrics", "logs"}


def test_the_stock_distributions_defaults_are_known_where_they_would_fail() -> None:
    """OTLP by gRPC for everything counts as nothing said where gRPC is not installed, and as said where it is."""
    assert is_stock_default(STOCK, HTTP_ONLY)
    assert not is_stock_default(STOCK, GRPC_ONLY)
    assert not is_stock_default(STOCK | {"OTEL_LOGS_EXPORTER": "none"}, HTTP_ONLY)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp_proto_http"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, True),
        ({"OTEL_LOGS_EXPORTER": "none"}, False),
        ({"OTEL_CONFIG_FILE": "otel.yaml"}, True),
    ],
)
def test_the_sdk_is_needed_for_what_the_layer_does_not_do(environ: dict[str, str], expected: bool) -> None:  # noqa: FBT001 - a table
    """Spans by OTLP over HTTP are the layer's own."""
    assert needs_the_sdk(environ) is expected


def test_the_exporters_that_come_with_us_are_found() -> None:
    """The installed OTLP exporter is read from the real entry points."""
    assert "otlp_proto_http" in installed()["traces"]


def test_instrumentors_that_make_our_spans_are_known() -> None:
    """A server framework's is; a client's is not, as ours makes no span for it."""
    assert ours("starlette") == "starlette"
    assert ours("fastapi") in {"fastapi", "starlette"}
    assert ours("httpx") is None
    assert ours("grpc_server") == ours("grpc_aio_server") == "grpc"
    assert ours("grpc_client") is None


def test_instrumentors_that_integrations_drive_are_no_duplicates() -> None:
    """They are needed, so nobody is told to remove them; our distribution leaves them to the integrations."""
    for name in ("psycopg", "asyncpg", "sqlalchemy", "redis"):
        assert driven(name) == name
        assert ours(name) is None
        assert isinstance(load(name), InstrumentorIntegration)
    assert driven("grpc_client") is None
