"""The oldest versions the integrations of client libraries claim to know, with the tests of the newest."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

import pytest

from sage_obs.integrations import base
from sage_obs.integrations.versions import distribution_of
from tests.support.venvs import python_with

ROOT: Final = Path(__file__).parents[2]
TESTS: Final = {
    "openai": "tests/integration/test_openai_client.py",
    "anthropic": "tests/integration/test_anthropic_client.py",
    "google-genai": "tests/integration/test_google_genai_client.py",
    "litellm": "tests/integration/test_litellm_client.py",
    "celery": "tests/integration/test_celery_worker.py",
    "mcp": "tests/integration/test_mcp.py",
    "langchain": "tests/integration/test_langgraph.py",
    "langgraph": "tests/integration/test_langgraph.py",
}
WITH: Final = {"celery": "redis==5.2.1", "langgraph": "langgraph-prebuilt==1.0.1"}
"""What was there at the time, where the newest does not go with it."""
TOGETHER: Final = [("openai", "anthropic", "google-genai"), ("litellm",), ("celery",), ("mcp",), ("langchain", "langgraph")]
"""Which fit into one environment: litellm wants a newer openai than the oldest."""


@pytest.mark.timeout(400)
@pytest.mark.parametrize("names", TOGETHER, ids="-".join)
def test_the_oldest_versions_pass_the_tests_of_the_newest(names: tuple[str, ...]) -> None:
    """Each integration keeps its promises with the first version it names."""
    integrations = [base.load(name) for name in names]
    oldest = [f"{distribution_of(one)}=={one.versions[0]}" for one in integrations]
    python = python_with("-".join(("oldest", *names)), [*oldest, *(WITH[name] for name in names if name in WITH), "httpx==0.28.1"])
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *dict.fromkeys(TESTS[name] for name in names)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    versions = "import importlib.metadata as m, sys; print(*(f'{name}=={m.version(name)}' for name in sys.argv[1:]))"
    found = subprocess.run(
        [str(python), "-c", versions, *map(distribution_of, integrations)], capture_output=True, text=True, timeout=60, check=True
    )
    assert [text.removesuffix(".0") for text in found.stdout.split()] == oldest
