from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sage_obs.errors import JournalError
from sage_obs.runbooks.journal import FILE, SEAL, EventType, Journal, read, seal, trusted, verify
from tests.support.runbooks import Clock


def _written(folder: Path, count: int = 3) -> Journal:
    journal = Journal(folder, run="a-run", clock=Clock())
    for number in range(count):
        journal.append(EventType.STEP_INTENT, step=f"step-{number}", data={"value": (number, 0.1)})
    return journal


def _rewrite(folder: Path, lines: list[bytes]) -> None:
    (folder / FILE).write_bytes(b"".join(lines))


def _lines(folder: Path) -> list[bytes]:
    return (folder / FILE).read_bytes().splitlines(keepends=True)


def test_a_reader_finds_exactly_what_the_writer_holds(tmp_path: Path) -> None:
    """Events survive the way to the disk and back unchanged, and the chain holds."""
    journal = _written(tmp_path)
    assert read(tmp_path) == journal.events
    journal.verify()


@pytest.mark.parametrize("number", [0, 1, 2], ids=["first", "middle", "last"])
def test_a_changed_line_shows(tmp_path: Path, number: int) -> None:
    """Any line with another content than was written is named."""
    _written(tmp_path)
    found = _lines(tmp_path)
    found[number] = found[number].replace(b"step-", b"stop-")
    _rewrite(tmp_path, found)
    with pytest.raises(JournalError, match=f"line {number + 1} is not what was written"):
        verify(read(tmp_path), source="the journal")


@pytest.mark.parametrize("number", [0, 1], ids=["first", "middle"])
def test_a_removed_line_shows(tmp_path: Path, number: int) -> None:
    """A gap breaks the chain."""
    _written(tmp_path)
    found = _lines(tmp_path)
    del found[number]
    _rewrite(tmp_path, found)
    with pytest.raises(JournalError, match="is not what was written"):
        verify(read(tmp_path), source="the journal")


def test_a_line_put_in_with_a_right_digest_of_its_own_shows(tmp_path: Path) -> None:
    """A line copied from another journal does not fit the line before it."""
    _written(tmp_path / "one")
    other = Journal(tmp_path / "two", run="another", clock=Clock())
    other.append(EventType.STEP_INTENT, step="other", data={})
    other.append(EventType.STEP_INTENT, step="other", data={})
    _rewrite(tmp_path / "one", [_lines(tmp_path / "one")[0], _lines(tmp_path / "two")[1]])
    with pytest.raises(JournalError, match="line 2"):
        verify(read(tmp_path / "one"), source="the journal")


def test_a_line_cut_short_by_a_crash_was_never_written(tmp_path: Path) -> None:
    """The torn line is left out by readers and replaced by the next append."""
    _written(tmp_path)
    with (tmp_path / FILE).open("ab") as stream:
        stream.write(b'{"seq": 4, "at"')
    assert len(read(tmp_path)) == 3
    journal = Journal(tmp_path, run="a-run", clock=Clock())
    journal.append(EventType.RUN_FINISHED, data={})
    journal.verify()
    assert len(read(tmp_path)) == 4


_LINE = {"seq": 1, "at": 1.0, "run": "a-run", "type": "step.intent", "step": "", "data": {}, "prev": "", "sha256": ""}

_WRONG: tuple[dict[str, Any], ...] = (
    {"type": "made.up"}, {"seq": "1"}, {"seq": True}, {"at": "now"}, {"at": 1e300}, {"at": float("nan")}, {"data": []}, {"run": None},
    {"prev": 0},
)  # fmt: skip


@pytest.mark.parametrize("cut", [1, 2])
def test_lines_cut_off_a_sealed_journal_show(tmp_path: Path, cut: int) -> None:
    """What is left is a whole chain, but not the one that was sealed."""
    journal = _written(tmp_path)
    seal(tmp_path, journal.events)
    assert trusted(tmp_path) == journal.events
    _rewrite(tmp_path, _lines(tmp_path)[:-cut])
    verify(read(tmp_path), source="the journal")
    with pytest.raises(JournalError, match="does not end as it was sealed"):
        trusted(tmp_path)


def test_a_seal_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Neither taken for none nor for a right one."""
    _written(tmp_path)
    (tmp_path / SEAL).write_text("{")
    with pytest.raises(JournalError, match="seal"):
        trusted(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "not json\n{}\n",
        '{"seq": 1}\n',
        *(json.dumps({**_LINE, **wrong}) + "\n" for wrong in _WRONG),
    ],
)
def test_what_is_no_journal_is_named(tmp_path: Path, text: str) -> None:
    """A file that cannot be read is an error people can act on."""
    (tmp_path / FILE).write_text(text)
    with pytest.raises(JournalError, match="cannot be read"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (EventType.RUN_STARTED, "Nothing was changed"),
        (EventType.STEP_INTENT, "stopped before undo"),
        (EventType.STEP_FINISHED, "What undo did stands"),
    ],
)
def test_a_full_disk_says_what_is_and_what_is_not_done(tmp_path: Path, kind: EventType, words: str) -> None:
    """The message depends on which side of the effect the line stands."""

    def full(path: Path, record: Mapping[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", f"{path} {len(record)}")

    journal = Journal(tmp_path, run="a-run", clock=Clock(), write=full)
    with pytest.raises(JournalError, match=words) as caught:
        journal.append(kind, step="" if kind is EventType.RUN_STARTED else "undo")
    assert "No space left" in caught.value.message
    assert journal.events == ()
