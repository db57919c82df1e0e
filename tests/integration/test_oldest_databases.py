"""The oldest versions of databases' clients and of gRPC that the integrations claim to know, and of OpenTelemetry's instrumentors."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

import pytest

from sage_obs.integrations import base
from tests.support.venvs import python_with

ROOT: Final = Path(__file__).parents[2]
TESTS: Final = ("tests/integration/test_databases.py", "tests/integration/test_grpc.py", "tests/unit/tracing")
LIBRARIES: Final = {
    "psycopg": "psycopg[binary]",
    "asyncpg": "asyncpg",
    "sqlalchemy": "sqlalchemy[asyncio]",
    "redis": "redis",
    "grpc": "grpcio",
}
INSTRUMENTORS: Final = ("psycopg", "asyncpg", "sqlalchemy", "redis")
OPENTELEMETRY: Final = ("opentelemetry-sdk==1.32.0", "opentelemetry-exporter-otlp-proto-http==1.32.0", "opentelemetry-distro==0.53b0")


@pytest.mark.timeout(400)
def test_the_oldest_versions_pass_the_tests_of_the_newest() -> None:
    """Each integration keeps its promises with the first version it names, driven by the oldest instrumentors of the extra."""
    libraries = [f"{package}=={base.load(name).versions[0]}" for name, package in LIBRARIES.items()]
    instrumentors = [f"opentelemetry-instrumentation-{name}==0.53b0" for name in INSTRUMENTORS]
    python = python_with("databases-oldest", [*libraries, *instrumentors, *OPENTELEMETRY])
    command = [str(python), "-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider", "-p", "no:xdist", *TESTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
