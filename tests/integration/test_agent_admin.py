"""The audit log, `/admin/` and what a proxy says of a real agent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from sage_agent.options import AGENT_OPTIONS
from sage_agent.security.audit_file import verify
from sage_agent.security.fingerprints import fingerprint
from sage_obs.processes import stop
from tests.support.agents import BODY, running_agent, start_agent, wait_for_line
from tests.support.nginx import nginx
from tests.support.ports import free_port

_KEY = "sage_a_key_that_is_long_enough"
_TOKEN = "a token of the administrators"  # noqa: S105 - a test's
_SEAL = "what the records are sealed with"
_ADMIN = {"authorization": f"Bearer {_TOKEN}"}
_OK = httpx.codes.OK


def _environ(folder: Path, **more: str) -> dict[str, str]:
    keys = [{"id": "ann", "tenant": "acme", "sha256": fingerprint(_KEY)}, {"id": "vic", "role": "viewer", "key": f"{_KEY}_viewer"}]
    return {
        "SAGE_API_KEYS": json.dumps(keys),
        "SAGE_AUDIT_PATH": str(folder / "audit/audit.jsonl"),
        "SAGE_AUDIT_KEY": _SEAL,
        "SAGE_ADMIN_ENABLED": "true",
        "SAGE_ADMIN_TOKEN": _TOKEN,
        **more,
    }


def _verify(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "sage_agent", "audit", "verify", str(folder / "audit/audit.jsonl"), "--json"]
    done = subprocess.run(command, env={**os.environ, "SAGE_AUDIT_KEY": _SEAL}, capture_output=True, text=True, check=False, timeout=60)
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == bool(found["problems"])
    return found


def _records(folder: Path, least: int = 0) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 10
    while True:
        lines = (folder / "audit/audit.jsonl").read_text().splitlines()
        if len(lines) >= least or time.monotonic() > deadline:
            return [json.loads(line) for line in lines if line.endswith("}")]
        time.sleep(0.02)


def test_who_did_what_is_written_and_what_was_said_is_not(tmp_path: Path) -> None:
    """The start with its settings, refusals, what an admin did, the end: sealed, with request ids, no secret, no word of a message."""
    secret = "what only the caller knows"  # noqa: S105 - a message
    with running_agent(tmp_path, environ=_environ(tmp_path)) as agent:
        refused = httpx.post(f"{agent.url}/v1/messages", json=BODY, headers={"x-api-key": "wrong"})
        httpx.post(f"{agent.url}/v1/messages", json=BODY, headers={"x-api-key": f"{_KEY}_viewer"})
        message = {"parts": [{"kind": "text", "text": secret}]}
        assert httpx.post(f"{agent.url}/v1/messages", json=message, headers={"x-api-key": _KEY}).status_code == _OK
        level = httpx.put(f"{agent.url}/admin/log-level", json={"level": "debug"}, headers=_ADMIN)
        assert (level.status_code, level.json()["level"]) == (_OK, "debug")
        assert httpx.put(f"{agent.url}/admin/tracing", json={"sampling_rate": 0.5}, headers=_ADMIN).json()["sampling_rate"] == 0.5
        assert httpx.post(f"{agent.url}/admin/cache/clear", headers=_ADMIN).json()["cleared"]
        info = httpx.get(f"{agent.url}/admin/info", headers={"x-api-key": f"{_KEY}_viewer"}).json()
        assert (info["log_level"], info["sampling_rate"], info["audit"], info["pid"]) == ("debug", 0.5, True, agent.process.pid)
        assert httpx.put(f"{agent.url}/admin/tracing", json={"sampling_rate": 2}, headers=_ADMIN).status_code == httpx.codes.BAD_REQUEST
        viewer = httpx.post(f"{agent.url}/admin/drain", headers={"x-api-key": f"{_KEY}_viewer"})
        assert viewer.status_code == httpx.codes.FORBIDDEN
        assert httpx.get(f"{agent.url}/admin/info").status_code == httpx.codes.UNAUTHORIZED
        assert httpx.get(f"{agent.url}/admin/info", headers={**_ADMIN, "x-forwarded-for": "127.0.0.1"}).status_code == httpx.codes.NOT_FOUND
        assert httpx.post(f"{agent.url}/admin/drain", headers=_ADMIN).json()["draining"]
        wait_for_line(agent.process, "agent stopped")
        closed = wait_for_line(agent.process, "audit log closed")
    records = _records(tmp_path)
    found = _verify(tmp_path)
    assert (found["problems"], found["record"], found["sha256"]) == ([], closed["record"], closed["sha256"])
    assert [records[0]["event"], records[-1]["outcome"]] == ["agent", "stopped"]
    said = {(one["event"], one["outcome"]) for one in records}
    assert {("auth", "not proved"), ("auth", "not allowed"), ("admin", "failed"), ("admin", "not allowed")} <= said
    done = [(one["actor"], one["action"], one.get("value")) for one in records if (one["event"], one["outcome"]) == ("admin", "done")]
    assert ("admin token", "PUT /admin/log-level", "debug") in done
    assert ("vic", "GET /admin/info", None) in done
    assert records[-2]["action"] == "POST /admin/drain"
    (first, *_) = [one for one in records if one["event"] == "auth"]
    assert first["request_id"] == refused.json()["error"]["request_id"]
    whole = (tmp_path / "audit/audit.jsonl").read_text() + agent.process.log.read_text()
    assert not [one for one in (_KEY, _TOKEN, _SEAL, secret, 'wrong"') if one in whole]


def test_a_killed_agent_leaves_a_chain_that_goes_on(tmp_path: Path) -> None:
    """Killed by -9 while refusals are written: nothing is found wrong once the next one has begun, and its records follow."""
    for name in ("one", "two"):
        with running_agent(tmp_path, name=name, environ=_environ(tmp_path)) as agent:
            for _ in range(20):
                httpx.post(f"{agent.url}/v1/messages", json=BODY)
            os.kill(agent.process.pid, signal.SIGKILL)
    with running_agent(tmp_path, environ=_environ(tmp_path)):
        pass
    found = _verify(tmp_path)
    assert found["problems"] == []
    assert [one["outcome"] for one in _records(tmp_path) if one["event"] == "agent"] == ["started", "started", "started", "stopped"]


def test_workers_have_a_chain_each(tmp_path: Path) -> None:
    """Two processes that are refusing callers at once write two files; both are right, and every refusal is in one of them."""
    port = str(free_port())
    environ = _environ(tmp_path, SAGE_SERVER_PORT=port, SAGE_METRICS_PORT=str(free_port()))
    process = start_agent(tmp_path, environ=environ, arguments=("--workers", "2"))
    try:
        deadline = time.monotonic() + 30
        while process.log.read_text().count('"agent listening"') < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        for _ in range(20):
            assert httpx.post(f"http://127.0.0.1:{port}/v1/messages", json=BODY).status_code == httpx.codes.UNAUTHORIZED
    finally:
        stop([process], grace=10.0)
    logs = [tmp_path / "audit" / name for name in ("audit.jsonl", "audit-2.jsonl")]
    assert [verify(log, key=_SEAL.encode()).problems for log in logs] == [[], []]
    records = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    assert sum(one["event"] == "auth" for one in records) == 20
    assert len({one["pid"] for one in records}) == 2


def test_admin_is_not_there_unless_it_is_wanted(tmp_path: Path) -> None:
    """404 as for any other path; and half a configuration ends the start."""
    with running_agent(tmp_path) as agent:
        assert httpx.get(f"{agent.url}/admin/info", headers=_ADMIN).status_code == httpx.codes.NOT_FOUND
    environ = {**os.environ, "SAGE_ADMIN_ENABLED": "true"}
    command = [sys.executable, "-m", "sage_agent", "config", "validate"]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "nobody can prove that they are an admin" in done.stderr


@pytest.mark.parametrize("trusted", [True, False])
def test_callers_behind_a_proxy_are_told_apart_where_it_is_trusted(tmp_path: Path, *, trusted: bool) -> None:
    """Each address has its own rate, whatever a caller writes before what nginx adds; a proxy nobody trusts is one caller."""
    environ = {"SAGE_RATE_LIMIT_PER_SECOND": "0.01", "SAGE_RATE_LIMIT_BURST": "2"}
    environ |= {"SAGE_TRUSTED_PROXIES": "127.0.0.1"} if trusted else {}
    with running_agent(tmp_path, environ=environ) as agent, nginx(agent.url) as proxy:

        def ask(address: str, lie: str) -> int:
            transport = httpx.HTTPTransport(local_address=address)
            with httpx.Client(transport=transport) as client:
                return client.post(f"{proxy}/v1/messages", json=BODY, headers={"x-forwarded-for": lie}).status_code

        first = [ask("127.0.0.2", f"192.0.2.{number}") for number in range(4)]
        other = ask("127.0.0.3", "127.0.0.2")
    assert first == [200, 200, 429, 429]
    assert other == (200 if trusted else 429)


def test_the_page_on_security_is_right(tmp_path: Path) -> None:
    """What it says to verify holds, its settings are settings, and what `keys new` prints goes into the file."""
    page = (Path(__file__).parents[2] / "docs/how-to/secure-the-agent.md").read_text()
    block = page.partition("## Verify")[2].partition("```sh\n")[2].partition("```")[0]
    made = subprocess.run(
        [sys.executable, "-m", "sage_agent", "keys", "new", "--id", "ci"], capture_output=True, text=True, check=True, timeout=60
    )
    (tmp_path / "keys.yaml").write_text(f"- {made.stderr}")
    environ = {"SAGE_API_KEYS_PATH": str(tmp_path / "keys.yaml"), "SAGE_AUDIT_PATH": str(tmp_path / "audit.jsonl")}
    with running_agent(tmp_path, environ=environ) as agent:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environ |= {**os.environ, **environ, "AGENT": agent.url, "KEY": made.stdout.strip(), "PATH": path}
        done = subprocess.run(["bash", "-ec", block], env=environ, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split()[:2] == ["401", "200"]
    assert "lines, records 1 to" in done.stdout.splitlines()[2]
    known = {option.path for option in AGENT_OPTIONS.values()}
    trees = [yaml.safe_load(one.partition("```")[0]) for one in page.split("```yaml\n")[1:]]
    assert {name for tree in trees for name in _paths(tree)} <= known


def _paths(tree: object, above: str = "") -> list[str]:
    if not isinstance(tree, dict):
        return [above]
    return [path for name, below in tree.items() for path in _paths(below, f"{above}.{name}".strip("."))]
