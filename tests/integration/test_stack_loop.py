"""One running stack, used as a person on call uses it: boards, a dry run, a bad release, a rollback by hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from sage_obs.conventions import BOARD_FLEET
from sage_obs.dashboards.queries import queries
from sage_obs.dashboards.render import render
from sage_obs.slo.windows import DRILL
from sage_obs.stack import binaries
from sage_obs.stack.state import read_note

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]
BAD_CONFIG = "llm: {provider: scripted, scripted: {latency: 20ms, error_rate: 0.3333}}\n"


@dataclass(frozen=True, slots=True)
class Running:
    """A running stack whose automatic runs are switched off, and its commands."""

    state: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ours against the stack."""
        command = [sys.executable, "-m", "sage_obs", *arguments, "--state", str(self.state)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    @property
    def prometheus(self) -> str:
        """Prometheus's address."""
        note = read_note(self.state)
        assert note is not None
        return note.prometheus_url

    def releases(self) -> dict[str, dict[str, Any]]:
        """What `release list` says, by version."""
        lines = self.run("release", "list", "--json").stdout.splitlines()
        return {release["version"]: release for release in map(json.loads, lines)}

    def plan(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A dry run of the incident runbook."""
        return self.run("runbook", "incident", "--dry-run", *arguments)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A stack under traffic whose first release has been proven good and is no longer new."""
    state = tmp_path_factory.mktemp("loop")
    binaries.find("prometheus")
    (state / "bin").symlink_to(Path(".sage-obs/bin").absolute())
    command = [sys.executable, "-m", "sage_obs", "up", "--state", str(state), "--ports", "any", "--profile", "drill", "--version", "1.0.0"]
    log = (state / "up.log").open("w")
    with log, subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "SAGE_OBS_AUTOMATION": "off"}) as process:
        stack = Running(state)
        started = time.monotonic()
        while time.monotonic() < started + DRILL.novelty + 8 or stack.releases()["1.0.0"]["standing"] != "good":
            assert process.poll() is None, (state / "up.log").read_text()
            assert time.monotonic() < started + 90, stack.releases()
            time.sleep(1)
        yield stack
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def _series(url: str, expression: str) -> list[dict[str, Any]]:
    answer = httpx.get(f"{url}/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", (expression, answer)
    return list(answer["data"]["result"])


def test_a_healthy_stack_is_called_healthy_and_nothing_is_proposed(running: Running) -> None:
    """The dry run measures all four triggers and leaves it at that, through Prometheus and by direct scrape alike."""
    result = running.plan()
    assert result.returncode == 0, result.stdout + result.stderr
    assert "fail" not in result.stdout
    ops = next(path for path in json.loads((running.state / "platform/sage-agent/targets.json").read_text())[0]["targets"])
    scraped = running.plan("--target", f"http://{ops}", "--window", "3")
    assert scraped.returncode == 0, scraped.stdout + scraped.stderr
    assert "no Prometheus" in scraped.stdout


def test_a_bad_release_is_planned_for_then_rolled_back_by_a_person(running: Running, tmp_path: Path) -> None:
    """With automation off nothing happens by itself; the plan names release, command and rails; `--yes` does it and verifies it."""
    (tmp_path / "bad.yaml").write_text(BAD_CONFIG)
    assert running.run("release", "create", "1.1.0", "--config", str(tmp_path / "bad.yaml")).returncode == 0
    assert running.run("release", "deploy", "1.1.0").returncode == 0
    deadline = time.monotonic() + 25
    while "Error rate" not in (plan := running.plan()).stdout or "P1" not in plan.stdout:
        assert time.monotonic() < deadline, plan.stdout + plan.stderr
        time.sleep(0.5)
    assert f"sage-obs release deploy 1.0.0 --state {running.state}" in plan.stdout
    assert "1.0.0 is the last release proven good" in plan.stdout
    assert running.releases()["1.1.0"]["desired"], "a dry run changed something"
    waiting = running.run("runbook", "incident", "--non-interactive")
    assert waiting.returncode == 4, waiting.stdout + waiting.stderr
    done = running.run("runbook", "incident", "--yes", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    after = running.releases()
    assert after["1.0.0"]["desired"]
    assert (after["1.0.0"]["standing"], after["1.1.0"]["standing"]) == ("good", "bad")
    assert all(json.loads(line) for line in done.stdout.splitlines())


def test_the_fleet_board_shows_what_runs(running: Running) -> None:
    """After traffic, failures and two releases no panel, annotation or variable of the overview is empty, the day before aside."""
    found = {}
    for query in queries(json.loads(render()[f"{BOARD_FLEET}.json"]), variables={"__rate_interval": "60s"}):
        if " offset " not in query.expr:
            expr = f"max_over_time(({query.expr})[10m:1s])" if query.panel == "annotation Incidents" else query.expr  # it is over by now
            found[f"{query.panel}: {query.expr}"] = _series(running.prometheus, expr)
    assert len(found) > 25
    assert [name for name, series in found.items() if not series] == []
    assert [name for name, series in found.items() if all(one["value"][1] == "NaN" for one in series)] == []
