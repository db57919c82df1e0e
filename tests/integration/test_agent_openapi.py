"""What the agent says that it serves, asked for in hundreds of ways."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
from openapi_spec_validator import validate

from tests.support.agents import running_agent

_KEY = "sage_a_key_that_is_long_enough"


def test_the_agent_serves_what_it_describes(tmp_path: Path) -> None:
    """Right and wrong requests made from the document it serves: no 500, and every answer, header and refusal is as it is described."""
    keys = json.dumps([{"id": "ann", "role": "admin", "key": _KEY}])
    environ = {"SAGE_API_KEYS": keys, "SAGE_ADMIN_ENABLED": "true", "SAGE_LLM_SCRIPTED_LATENCY": "0"}
    with running_agent(tmp_path, environ=environ) as agent:
        address = f"{agent.url}/openapi.json"
        validate(httpx.get(address).raise_for_status().json())
        command = [str(Path(sys.executable).with_name("st")), "run", address, "--checks=all", "--max-examples=15", "--seed=1", "--no-color"]
        command += [f"--header=X-API-Key: {_KEY}", "--exclude-path=/admin/drain", "--phases=examples,coverage,fuzzing"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=150)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
        generated = re.search(r"(\d+) generated", done.stdout)
        assert generated is not None
        assert int(generated[1]) > 300, done.stdout[-1000:]
        assert "request failed" not in {line["message"] for line in agent.lines()}
        assert httpx.get(f"{agent.url}/health/ready").json()["status"] == "healthy"
