"""The promise, end to end: a bad release is found, rolled back, verified and written up in under a minute."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sage_obs.stack import binaries

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def _drill(name: str, state: Path) -> tuple[int, dict[str, Any], str]:
    for tool in binaries.NAMES:
        binaries.find(tool)
    state.mkdir()
    (state / "bin").symlink_to(Path(".sage-obs/bin").absolute())
    command = [sys.executable, "-m", "sage_obs", "drill", name, "--state", str(state), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    return result.returncode, json.loads(result.stdout or "{}"), result.stderr


@pytest.mark.parametrize("name", ["bad-release", "bad-release-responder-killed"])
def test_a_bad_release_is_rolled_back_and_verified_within_a_minute(tmp_path: Path, name: str) -> None:
    """Every check of the drill passes, also when the responder is killed in the middle of the rollback."""
    code, result, said = _drill(name, tmp_path / "state")
    assert code == 0, f"{json.dumps(result, indent=1)}\n{said}"
    assert result["passed"]
    assert 0 < result["detected_seconds"] < result["mitigated_seconds"] < result["verified_seconds"] < 60
    assert [check["name"] for check in result["checks"] if not check["passed"]] == []
    killed = [mark for mark in result["timeline"] if "killed" in mark["what"]]
    assert len(killed) == (name == "bad-release-responder-killed")
    postmortem = Path(result["postmortem"]).read_text()
    assert "1.1.0" in postmortem
    assert "1.0.0" in postmortem
