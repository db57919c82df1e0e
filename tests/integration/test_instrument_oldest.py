from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sage_obs.integrations.base import load
from sage_obs.integrations.versions import numbers
from tests.support.venvs import python_with

ROOT = Path(__file__).parents[2]
OLDEST = {
    "aiohttp": "3.11.0",
    "django": "4.2",
    "fastapi": "0.109.0",
    "flask": "2.2.0",
    "granian": "2.0.0",
    "gunicorn": "21.2.0",
    "httpx2": "2.0.0",
    "loguru": "0.7.2",
    "requests": "2.28.0",
    "starlette": "0.35.0",
    "structlog": "23.1.0",
    "uvicorn": "0.20.0",
}
BESIDE = {"werkzeug": "2.2.0"}
"""What the oldest Flask needs to be old too."""
UNIT = ("test_wsgi.py", "test_clients.py", "test_log_libraries.py", "test_server_loggers.py")
SERVED = ("test_instrument_fastapi.py", "test_instrument_wsgi.py", "test_instrument_aiohttp.py")


@pytest.fixture(scope="session")
def web_oldest() -> Path:
    """The interpreter of an environment with the oldest versions."""
    return python_with("web-oldest", [f"{name}=={version}" for name, version in (OLDEST | BESIDE).items()])


def _run(*command: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False, env=environment)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-8000:]}\n{done.stderr[-4000:]}"


def test_the_oldest_versions_are_those_the_integrations_name() -> None:
    """What is tested here is what the integrations say they know."""
    for name, version in OLDEST.items():
        first = numbers(load(name).versions[0])
        assert numbers(version) == (*first, 0, 0)[: len(numbers(version))], name
    assert load("aiohttp-client").versions == load("aiohttp").versions


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("folder", "files"), [("unit/integrations", UNIT), ("integration", SERVED)], ids=["in process", "served"])
def test_everything_holds_with_the_oldest_versions_too(web_oldest: Path, tmp_path: Path, folder: str, files: tuple[str, ...]) -> None:
    """The tests of web frameworks, clients, servers and log libraries pass with the first version of each that its integration names."""
    tests = [str(ROOT / "tests" / folder / file) for file in files]
    _run(str(web_oldest), "-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inner'}", *tests)
