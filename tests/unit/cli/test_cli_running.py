from __future__ import annotations

import io
from pathlib import Path

import pytest

from sage_obs.cli.running import approver, exit_code, printer
from sage_obs.errors import ExitCode
from sage_obs.runbooks import runs
from sage_obs.runbooks.records import Decision
from tests.support.runbooks import BAD, GOOD, Scene

DECISION = Decision(BAD, GOOD, "it is proven good", ("deploy", "1.0.0"), ())


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("typed", "answer"), [("y\n", True), ("n\n", False), ("\n", False)], ids=["yes", "no", "return"])
def test_a_person_at_a_terminal_is_shown_the_plan_and_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, typed: str, answer: bool
) -> None:
    """From where to where and by which command; only a yes is a yes."""
    monkeypatch.setattr("sys.stdin", _Terminal(typed))
    assert approver(yes=False, ask=True)(DECISION) is answer
    shown = capsys.readouterr().out
    assert "Current release: 1.1.0" in shown
    assert "Would go back to: 1.0.0" in shown
    assert "Command: deploy 1.0.0" in shown


def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe, or --non-interactive, leaves the run waiting; --yes approves anywhere."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert approver(yes=False, ask=True)(DECISION) is None
    monkeypatch.setattr("sys.stdin", _Terminal("y\n"))
    assert approver(yes=False, ask=False)(DECISION) is None
    assert approver(yes=True, ask=False)(DECISION) is True


def test_the_exit_code_is_the_outcome(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that waits ends its command with 4, and the last line says how to approve it."""
    progress = runs.execute(
        runs.script("incident"), Scene(tmp_path).start(automatic=False), Scene(tmp_path / "scene").world, watch=printer(as_json=False)
    )
    assert exit_code(progress) == ExitCode.WAITING_FOR_APPROVAL
    assert f"`sage-obs runbook resume {progress.run} --yes` approves it" in capsys.readouterr().out
