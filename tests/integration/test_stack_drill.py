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


def test_an_interrupted_drill_is_not_a_pass(tmp_path: Path) -> None:
    """SIGTERM ends it with exit code 130, whatever it had shown by then."""
    binaries.find("prometheus")
    (tmp_path / "state").mkdir()
    (tmp_path / "state/bin").symlink_to(Path(".sage-obs/bin").absolute())
    command = [sys.executable, "-m", "sage_obs", "drill", "bad-release", "--state", str(tmp_path / "state"), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "proving it good" not in process.stderr.readline():
            assert process.poll() is None
        process.terminate()
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == ""


def test_a_drill_without_prometheus_fails_at_once(tmp_path: Path) -> None:
    """Nothing could fire, so nothing is waited for."""
    command = [sys.executable, "-m", "sage_obs", "drill", "bad-release", "--state", str(tmp_path / "state")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False, env={"PATH": str(tmp_path)})
    assert result.returncode == 1
    assert "Cannot get prometheus: it is not on PATH" in result.stderr
