"""`sage-obs alerts` and `sage-obs dashboards` as a user types them."""

import json
from pathlib import Path

import pytest

from sage_obs.cli import run
from sage_obs.errors import ExitCode


@pytest.mark.parametrize("part", ["alerts", "dashboards"])
def test_export_then_check_then_drift(part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Paths on stdout; an exported folder passes the check; a changed file fails it, is not overwritten, and is with --force."""
    out = ["--out", str(tmp_path / part)]
    assert run([part, "export", *out]) == ExitCode.OK
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert written
    assert all(path.is_file() for path in written)
    assert run([part, "export", *out, "--check"]) == ExitCode.OK
    assert run([part, "export", *out]) == ExitCode.OK
    assert capsys.readouterr().out == ""
    written[0].write_text("mine")
    assert run([part, "export", *out, "--check"]) == ExitCode.FAILED
    assert run([part, "export", *out]) == ExitCode.FAILED
    assert written[0].read_text() == "mine"
    talk = capsys.readouterr().err
    assert f"differs: {written[0].relative_to(tmp_path / part)}" in talk
    assert f"sage-obs {part} export --out {tmp_path / part} --force" in talk
    assert run([part, "export", *out, "--force"]) == ExitCode.OK
    assert capsys.readouterr().out.splitlines() == [str(written[0])]


def test_options_of_the_export_reach_the_files(tmp_path: Path) -> None:
    """Windows, links, the responder's address and its token's file."""
    options = ["--profile", "drill", "--runbook-url", "https://r", "--grafana-url", "https://g", "--responder-url", "http://x:1/alerts"]
    assert run(["alerts", "export", "--out", str(tmp_path), *options, "--token-file", "/t"]) == ExitCode.OK
    rules, config = (tmp_path / "sage-rollback.yml").read_text(), (tmp_path / "alertmanager.yml").read_text()
    for text in ("interval: 1s", "https://r/incident.md", "https://g/d/sage-fleet"):
        assert text in rules
    for text in ("url: http://x:1/alerts", "credentials_file: /t"):
        assert text in config


def test_the_hint_repeats_the_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Typed again with --force, the command renders the same files."""
    assert run(["alerts", "export", "--out", str(tmp_path), "--profile", "drill", "--check"]) == ExitCode.FAILED
    assert f"`sage-obs alerts export --out {tmp_path} --profile drill --force`" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_check_and_force_exclude_each_other(tmp_path: Path) -> None:
    """One writes nothing, the other overwrites."""
    assert run(["dashboards", "export", "--out", str(tmp_path), "--check", "--force"]) == ExitCode.USAGE
    assert list(tmp_path.iterdir()) == []


def test_left_over_files_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An export names what it no longer renders, and leaves the deleting to people."""
    assert run(["dashboards", "export", "--out", str(tmp_path)]) == ExitCode.OK
    old = tmp_path / "sage-old.json"
    old.write_text((tmp_path / "sage-fleet.json").read_text())
    assert run(["dashboards", "export", "--out", str(tmp_path)]) == ExitCode.OK
    assert f"{old} is no longer rendered" in capsys.readouterr().err
    assert old.exists()


@pytest.mark.parametrize(("part", "names"), [("alerts", 51), ("dashboards", 8)])
def test_lists_are_for_people_and_for_machines(part: str, names: int, capsys: pytest.CaptureFixture[str]) -> None:
    """One line each, or one JSON object a line."""
    assert run([part, "list"]) == ExitCode.OK
    assert len(capsys.readouterr().out.splitlines()) == names
    assert run([part, "list", "--json"]) == ExitCode.OK
    assert len([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == names


@pytest.mark.parametrize("part", ["alerts", "dashboards"])
def test_lint_passes_on_what_ships(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And says so."""
    assert run([part, "lint"]) == ExitCode.OK
    assert "no findings" in capsys.readouterr().out
