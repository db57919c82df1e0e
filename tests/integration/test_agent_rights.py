"""What is kept about a user, from the command line, beside a real agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from tests.support.agents import running_agent
from tests.support.databases import redis_server


def _run(folder: Path, *arguments: str, environ: Mapping[str, str], answer: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sage_agent", "sessions", *arguments]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environ}, input=answer, capture_output=True, text=True, timeout=60, check=False
    )


def _talk(url: str, context: str, text: str) -> None:
    body = {"contextId": context, "parts": [{"kind": "text", "text": text}]}
    assert httpx.post(f"{url}/v1/messages", json=body).status_code == 200


def _exercise(folder: Path, environ: Mapping[str, str]) -> None:
    with running_agent(folder, environ=environ) as agent:
        for context, text in (("one", "hello there"), ("one", "and again"), ("two", "something else")):
            _talk(agent.url, context, text)
        exported = _run(folder, "export", "--user", "anonymous", environ=environ)
        assert exported.returncode == 0, exported.stderr
        found = {line["contextId"]: line["turns"] for line in map(json.loads, exported.stdout.splitlines())}
        assert [turn["text"] for turn in found["one"] if turn["role"] == "user"] == ["hello there", "and again"]
        assert set(found) == {"one", "two"}
        assert _run(folder, "export", "--user", "anonymous", "--tenant", "other", environ=environ).stdout == ""
        refused = _run(folder, "erase", "--user", "anonymous", environ=environ, answer="n\n")
        assert refused.returncode != 0
        assert "Traceback" not in refused.stderr
        erased = _run(folder, "erase", "--user", "anonymous", "--yes", environ=environ)
        assert json.loads(erased.stdout) == {"erased": 2, "tenant": "", "user": "anonymous"}
        assert _run(folder, "export", "--user", "anonymous", environ=environ).stdout == ""
        _talk(agent.url, "one", "from the beginning")
        message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "over A2A"}]}
        sent = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
        task = httpx.post(f"{agent.url}/a2a", json=sent, headers={"a2a-version": "1.0"}, timeout=30).json()["result"]["task"]
        exported = _run(folder, "export", "--user", "anonymous", environ=environ)
        (found,) = [line for line in map(json.loads, exported.stdout.splitlines()) if "taskId" in line]
        assert (found["taskId"], found["task"]["history"][0]["parts"]) == (task["id"], [{"text": "over A2A"}])
        assert json.loads(_run(folder, "erase", "--user", "anonymous", "--yes", environ=environ).stdout)["erased"] >= 2
        assert _run(folder, "export", "--user", "anonymous", environ=environ).stdout == ""


def test_a_users_conversations_are_exported_and_erased_in_a_file(tmp_path: Path) -> None:
    """With the default store, while the agent runs: everything, tasks too, is handed out, and gone once somebody confirmed it."""
    _exercise(tmp_path, {"SAGE_STORAGE_PATH": str(tmp_path / "state.db")})


def test_a_users_conversations_are_exported_and_erased_in_redis(tmp_path: Path) -> None:
    """The same in a store that replicas share."""
    with redis_server() as url:
        _exercise(tmp_path, {"SAGE_DB_CONNECTION_STRING": url})


def test_memory_and_a_lost_store_are_explained(tmp_path: Path) -> None:
    """Nothing can be asked of another process's memory, nor of a server that is not there: both are said, with what to do."""
    memory = _run(tmp_path, "export", "--user", "u", environ={"SAGE_STORAGE_TYPE": "memory"})
    assert memory.returncode != 0
    assert "no other can reach" in memory.stderr
    lost = _run(tmp_path, "export", "--user", "u", environ={"SAGE_DB_CONNECTION_STRING": "redis://:hunter2@127.0.0.1:1/0"})
    assert lost.returncode != 0
    assert "127.0.0.1:1" in lost.stderr
    assert "hunter2" not in lost.stderr
    assert "Traceback" not in memory.stderr + lost.stderr
