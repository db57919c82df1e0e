"""The note a running stack leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sage_obs.errors import LockHeldError
from sage_obs.stack.state import StackNote, exclusive, read_note

NOTE = StackNote(1, "drill", "http://127.0.0.1:1", "", "", "http://127.0.0.1:2")


def test_a_note_counts_while_its_stack_holds_the_lock_and_not_after(tmp_path: Path) -> None:
    """A note left by a crash is not believed, whatever process has its pid now."""
    NOTE.write(tmp_path)
    assert read_note(tmp_path) is None
    with exclusive(tmp_path):
        assert read_note(tmp_path) == NOTE
    assert read_note(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": 1}'])
def test_an_unreadable_note_is_none(tmp_path: Path, text: str) -> None:
    """Other commands then say that no stack runs, instead of failing."""
    (tmp_path / "stack.json").write_text(text)
    with exclusive(tmp_path):
        assert read_note(tmp_path) is None


def test_a_second_stack_is_told_who_runs(tmp_path: Path) -> None:
    """The error names the folder and the process."""
    with exclusive(tmp_path), pytest.raises(LockHeldError, match=rf"runs on .*\(pid {os.getpid()}\)"), exclusive(tmp_path):
        pass
