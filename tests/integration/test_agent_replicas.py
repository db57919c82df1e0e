"""Two agents on one store, as the page on sharing state has it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.agents import running_agent
from tests.support.databases import postgres, redis_server
from tests.support.ports import free_port
from tests.support.services import wait_until

_PAGE = (Path(__file__).parents[2] / "docs/how-to/share-state.md").read_text()


def _run(line: str, environ: dict[str, str]) -> str:
    command = line.replace("$ONE", environ["ONE"]).replace("$TWO", environ["TWO"])
    words = shlex.split(command)
    if words[0] == "sage-agent":
        words[:1] = [sys.executable, "-m", "sage_agent"]
    return subprocess.run(words, env={**os.environ, **environ}, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_replicas_share_conversations_and_limits(kind: str, tmp_path: Path) -> None:
    """The lines under Verify hold as they stand, and two replicas together admit what the limit says, not twice that."""
    lines = re.findall(r"```sh\n(.*?)```", _PAGE.partition("## Verify")[2], re.DOTALL)[0].splitlines()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with {"postgres": postgres, "redis": redis_server}[kind]() as url:
        (tmp_path / "secret").write_text(url)
        environ = {
            "SAGE_DB_CONNECTION_STRING_FILE": str(tmp_path / "secret"),
            "SAGE_RATE_LIMIT_PER_SECOND": "0.001",
            "SAGE_RATE_LIMIT_BURST": "7",
        }
        with running_agent(tmp_path / "a", environ=environ) as one, running_agent(tmp_path / "b", environ=environ) as two:
            said = [_run(line, {**environ, "ONE": one.url, "TWO": two.url}) for line in lines]
            (conversation,) = map(json.loads, said[-1].splitlines())
            assert [turn["text"] for turn in conversation["turns"] if turn["role"] == "user"] == ["Hello", "And again"]
            body = {"parts": [{"kind": "text", "text": "x"}]}
            codes = [httpx.post(f"{url}/v1/messages", json=body).status_code for _ in range(6) for url in (one.url, two.url)]
            assert codes.count(200) == 7 - 2
            assert codes.count(429) == 12 - 5
            metrics = httpx.get(f"{one.ops_url}/metrics").text
            assert 'sage_agent_storage_operation_duration_seconds_count{operation="limits.take"}' in metrics
            assert 'sage_agent_storage_connections{state="idle"}' in metrics


def test_a_store_that_is_lost_degrades_readiness_and_comes_back(tmp_path: Path) -> None:
    """Liveness stays, readiness says degraded with the check, a message without a conversation is answered, and all is well again after."""
    port = free_port()
    environ = {"SAGE_DB_CONNECTION_STRING": f"redis://127.0.0.1:{port}/0", "SAGE_STORAGE_TIMEOUT": "500ms"}

    def ready(url: str) -> str:
        answer = httpx.get(f"{url}/health/ready")
        assert answer.status_code == 200
        failing = [check["name"] for check in answer.json()["details"]["checks"] if check["status"] != "healthy"]
        return f"{answer.json()['status']} {failing}"

    def ask(url: str, **more: str) -> int:
        return httpx.post(f"{url}/v1/messages", json={"parts": [{"kind": "text", "text": "x"}], **more}).status_code

    with redis_server(port=port):
        context = running_agent(tmp_path, environ=environ)
        agent = context.__enter__()
    try:
        wait_until(lambda: ready(agent.url) == "degraded ['storage']", says=lambda: ready(agent.url))
        assert httpx.get(f"{agent.url}/health/live").status_code == 200
        assert ask(agent.url) == 200
        assert ask(agent.url, contextId="c") == 503
        with redis_server(port=port):
            wait_until(lambda: ready(agent.url) == "healthy []", says=lambda: ready(agent.url))
            assert ask(agent.url, contextId="c") == 200
    finally:
        context.__exit__(None, None, None)


def test_a_chosen_file_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """Where somebody chose SQLite and it cannot be had, the agent does not start, and says which file it is."""
    (tmp_path / ".sage-agent").touch()
    command = [sys.executable, "-m", "sage_agent", "serve", "--port", "0"]
    named = {**os.environ, "SAGE_STORAGE_TYPE": "sqlite", "SAGE_STORAGE_PATH": str(tmp_path / ".sage-agent/s.db"), "SAGE_METRICS_PORT": "0"}
    refused = subprocess.run(command, cwd=tmp_path, env=named, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode != 0
    assert "cannot be opened" in refused.stderr + refused.stdout
    assert "Traceback" not in refused.stderr
