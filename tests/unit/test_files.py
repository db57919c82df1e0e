"""Files that survive a crash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_obs.files import CorruptLineError, append_json, is_locked, locked, read_json_lines, replace_text


def test_appended_records_are_read_back_in_order(tmp_path: Path) -> None:
    """What was appended comes back, oldest first."""
    path = tmp_path / "deep/lines.jsonl"
    for number in range(3):
        append_json(path, {"n": number})
    assert read_json_lines(path) == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_missing_file_holds_no_records(tmp_path: Path) -> None:
    """No file is the same as an empty one."""
    assert read_json_lines(tmp_path / "none") == []


@given(cut=st.integers(min_value=0, max_value=40))
def test_a_torn_last_line_is_dropped_and_written_over(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """Wherever a crash cuts the last line, the lines before it stay and the next append stands on its own."""
    path = tmp_path_factory.mktemp("torn") / "lines.jsonl"
    append_json(path, {"n": 0})
    whole = path.read_bytes()
    append_json(path, {"n": 1, "text": "x" * 20})
    torn = path.read_bytes()[: len(whole) + cut]
    path.write_bytes(torn.rstrip(b"\n") if cut else torn)
    append_json(path, {"n": 2})
    assert read_json_lines(path) == [{"n": 0}, {"n": 2}]


def test_a_corrupt_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path) -> None:
    """What follows a corrupt line cannot be trusted, so nothing is guessed."""
    path = tmp_path / "lines.jsonl"
    path.write_text('{"n":0}\nrubbish\n{"n":2}\n')
    with pytest.raises(CorruptLineError, match="line 2"):
        read_json_lines(path)


def test_a_failed_append_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills half-way through a line leaves only whole lines."""
    path = tmp_path / "lines.jsonl"
    append_json(path, {"n": 0})
    before = path.read_bytes()
    real = os.write

    def half_then_full(descriptor: int, data: bytes) -> int:
        if len(data) < 4:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[: len(data) // 2])

    monkeypatch.setattr("sage_obs.files.os.write", half_then_full)
    with pytest.raises(OSError, match="No space"):
        append_json(path, {"n": 1})
    assert path.read_bytes() == before


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure while writing keeps the old content and leaves no scratch file."""
    path = tmp_path / "note"
    replace_text(path, "old", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sage_obs.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_text(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["note"]


def test_several_processes_append_without_losing_a_line(tmp_path: Path) -> None:
    """Every acknowledged line of every writer is there, whole."""
    path = tmp_path / "lines.jsonl"
    code = "import sys; from pathlib import Path; from sage_obs.files import append_json\n"
    code += "for n in range(150): append_json(Path(sys.argv[1]), {'writer': sys.argv[2], 'n': n})"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), str(writer)]) for writer in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    lines = read_json_lines(path)
    assert sorted((line["writer"], line["n"]) for line in lines) == sorted((str(w), n) for w in range(3) for n in range(150))


def test_unreadable_lines_are_left_out_where_that_was_asked_for(tmp_path: Path) -> None:
    """A file of dates can lose one without losing the others."""
    path = tmp_path / "lines.jsonl"
    path.write_text('{"n":0}\nrubbish\n[1]\n{"n":2}\n')
    assert read_json_lines(path, strict=False) == [{"n": 0}, {"n": 2}]


def test_a_lock_is_seen_while_it_is_held_and_only_then(tmp_path: Path) -> None:
    """Whether somebody holds a lock does not depend on what the file says."""
    path = tmp_path / "lock"
    assert not is_locked(path)
    with locked(path):
        assert is_locked(path)
    assert not is_locked(path)
