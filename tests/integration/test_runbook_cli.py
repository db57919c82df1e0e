"""`sage-obs runbook` as people call it: another process, real sockets, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sage_obs.conventions import AGENT_METRICS
from sage_obs.runbooks import journal
from tests.support.prometheus import Target, serving


def _runbook(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sage_obs", "runbook", *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("target", "code", "words"),
    [
        (Target("1.1.0", failed=1 / 3), 3, ("fail     1.1.0  Error rate 33.3 % > 5 %", "Severity: P1", "REFUSES  known platform")),
        (Target("1.1.0"), 0, ("pass     1.1.0  Error rate 0 % ≤ 5 %", "Verdict: healthy: nothing to do")),
        (Target("1.1.0", requests=1), 7, ("unknown  1.1.0  Error rate 0 % on 1 samples; 50 are needed", "Verdict: unknown")),
    ],
    ids=["failing", "healthy", "hardly any traffic"],
)
def test_a_dry_run_against_a_bare_target(tmp_path: Path, target: Target, code: int, words: tuple[str, ...]) -> None:
    """Without a stack it measures directly and says so; the exit code is the verdict; nothing is written."""
    with serving(target) as address:
        result = _runbook("incident", "--dry-run", "--target", f"http://{address}", "--window", "0.5", cwd=tmp_path)
    assert result.returncode == code, result.stdout + result.stderr
    assert f"Measured by direct scrape of http://{address}" in result.stdout
    assert all(text in result.stdout for text in words), result.stdout
    assert list(tmp_path.iterdir()) == []


def test_json_is_the_journal_one_event_a_line(tmp_path: Path) -> None:
    """Nothing but events on stdout, numbered from 1, the last one with the exit code."""
    with serving(Target("1.1.0", failed=1 / 3)) as address:
        result = _runbook("incident", "--dry-run", "--target", address, "--window", "0.5", "--json", cwd=tmp_path)
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["type"] == "run.finished"
    assert events[-1]["data"]["exit_code"] == result.returncode == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["incident", "--dry-run"], 1, "No stack runs on .sage-obs, so there is nothing to measure."),
        (["incident", "--dry-run", "--prometheus", "http://127.0.0.1:1"], 1, "Cannot reach Prometheus at http://127.0.0.1:1"),
        (["incident", "--dry-run", "--target", "http://127.0.0.1:1"], 1, "connection refused"),
        (["incident", "--dry-run", "--target", "x", "--prometheus", "y"], 2, "two places to measure at"),
        (["incident", "--dry-run", "--prometheus", "http://127.0.0.1:1", "--window", "5"], 2, "--window is the time between"),
        (["incident", "--dry-run", "--target", "x", "--param", "sevice=a"], 2, "no parameter `sevice`"),
        (["incident", "--dry-run", "--target", "x", "--param", "service"], 2, "is not NAME=VALUE"),
        (["incident", "--dry-run", "--target", "x", "--service", "../x"], 2, "cannot be a service's name"),
        (["resume", "latest"], 2, "There is no run `latest`"),
        (["show", "incidnet"], 2, "Did you mean `incident`?"),
        (["lint", "missing.yaml"], 2, "Cannot read the runbook missing.yaml"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_sentence_and_an_exit_code(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    """What happened and what to do next, never a traceback; nothing is left behind."""
    result = _runbook(*arguments, cwd=tmp_path)
    said = result.stdout + result.stderr
    assert (result.returncode, words in said, "Traceback" in said) == (code, True, False), said
    assert list(tmp_path.iterdir()) == []


def test_a_real_run_leaves_a_run_that_can_be_looked_at(tmp_path: Path) -> None:
    """Refused for want of a platform: journal and post-mortem are there, `status` and `postmortem` read them."""
    with serving(Target("1.1.0", failed=1 / 3)) as address:
        ran = _runbook("incident", "--yes", "--target", address, "--window", "0.5", "--state", "state", cwd=tmp_path)
    assert ran.returncode == 3, ran.stdout + ran.stderr
    listed = _runbook("status", "--state", "state", "--json", cwd=tmp_path)
    assert json.loads(listed.stdout)["outcome"] == "refused"
    shown = _runbook("status", "latest", "--state", "state", cwd=tmp_path)
    assert "refused: nothing was changed" in shown.stdout
    written = _runbook("postmortem", "--state", "state", cwd=tmp_path)
    assert written.stdout.startswith("# Post-mortem: sage-agent, P1")
    path = next((tmp_path / "state/runs").glob("*/journal.jsonl"))
    path.write_text(path.read_text().replace("refused", "allowed", 1))
    tampered = _runbook("status", "latest", "--state", "state", cwd=tmp_path)
    assert tampered.returncode == 1
    assert "is not what was written" in tampered.stderr


_FULL = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); "
"""The first lines of a process whose files cannot grow, as on a full disk."""


def test_a_full_disk_is_a_sentence_and_changes_nothing(tmp_path: Path) -> None:
    """Not even the lock can be signed: exit 1, what to do, and no run left behind."""
    code = _FULL + "from sage_obs.cli import main; sys.argv[0] = 'sage-obs'; sys.exit(main())"
    with serving(Target("1.1.0", failed=1 / 3)) as address:
        result = subprocess.run(
            [sys.executable, "-B", "-c", code, "runbook", "incident", "--yes", "--target", address, "--window", "0.5", "--state", "state"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (result.returncode, "Traceback" in result.stderr) == (1, False), result.stderr
    assert "Nothing was changed." in result.stderr
    assert "Make room first." in result.stderr
    assert list((tmp_path / "state/runs").iterdir()) == []


def test_a_full_disk_leaves_the_platform_alone(tmp_path: Path) -> None:
    """A run that cannot be written down asks the platform for nothing."""
    code = _FULL + (
        "from pathlib import Path; from sage_obs.runbooks import runs; from sage_obs.platforms.ledger import Ledger; "
        "from sage_obs.errors import JournalError; from tests.support.runbooks import Scene; Ledger.mark = lambda *_, **__: True\n"
        "scene = Scene(Path(sys.argv[1]))\n"
        "try: runs.execute(runs.script('incident'), scene.start(), scene.world)\n"
        "except JournalError as exc: print(scene.platform.asked, exc.message)"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-B", "-c", code, str(tmp_path)], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stdout.startswith("[] Cannot write the run's folder"), result.stdout + result.stderr


@pytest.mark.parametrize("command", [("resume", "latest", "--target", "x"), ("status", "latest"), ("postmortem",)], ids=lambda one: one[0])
def test_a_journal_that_no_run_wrote_is_a_sentence(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Its chain holds and its data is nonsense: exit 1 and no traceback."""
    folder = tmp_path / "state/runs/20260101T000000Z-incident-abcdef"
    log = journal.Journal(folder, run=folder.name, clock=lambda: 1.0)
    log.append(journal.EventType.RUN_STARTED, data={})
    result = _runbook(*command, "--state", "state", cwd=tmp_path)
    assert (result.returncode, "Traceback" in result.stderr, "no run writes" in result.stderr) == (1, False, True), result.stderr


def test_a_runbook_of_ones_own_is_linted(tmp_path: Path) -> None:
    """The catalogue is clean; a mistake in a file is named by file, line and key."""
    assert _runbook("lint", cwd=tmp_path).returncode == 0
    text = _runbook("show", "rollback", cwd=tmp_path).stdout
    (tmp_path / "mine.yaml").write_text(text)
    assert _runbook("lint", "mine.yaml", cwd=tmp_path).returncode == 0
    (tmp_path / "mine.yaml").write_text(text.replace("timeout: 15m", "timeuot: 15m"))
    result = _runbook("lint", "mine.yaml", cwd=tmp_path)
    assert result.returncode == 2
    assert "Did you mean `timeout`?" in result.stderr
    assert f"mine.yaml, line {text[: text.index('timeout: 15m')].count(chr(10)) + 1}" in result.stderr


def test_the_pages_are_exported_and_never_overwritten_silently(tmp_path: Path) -> None:
    """Written, checked, and protected unless told otherwise."""
    assert _runbook("export", cwd=tmp_path).returncode == 0
    assert _runbook("export", "--check", cwd=tmp_path).returncode == 0
    (tmp_path / "runbooks/incident.md").write_text("mine")
    assert _runbook("export", "--check", cwd=tmp_path).returncode == 1
    assert _runbook("export", cwd=tmp_path).returncode == 1
    assert (tmp_path / "runbooks/incident.md").read_text() == "mine"
    assert _runbook("export", "--force", cwd=tmp_path).returncode == 0


def test_a_dry_run_loads_no_telemetry_and_no_boards() -> None:
    """It must start fast on a bad day: neither OpenTelemetry nor grafanalib is imported."""
    code = (
        "import sys; from sage_obs.cli import run; run(['runbook', 'incident', '--dry-run', '--target', 'http://127.0.0.1:1']); "
        "print([name for name in ('opentelemetry', 'grafanalib', 'loguru', 'sage_obs.layer') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_the_test_target_shows_what_an_agent_shows() -> None:
    """The stand-in above has every family that a real agent has."""
    text = Target("1.0.0").exposition()
    assert all(f"# TYPE {metric.name} " in text for metric in AGENT_METRICS)
