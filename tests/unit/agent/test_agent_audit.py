"""The audit log: a chain whose every change shows, written by a thread that loses nothing without saying so."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sage_agent.cli import group
from sage_agent.security import audit_file
from sage_agent.security.audit import AuditLog
from sage_agent.security.audit_chain import Head
from sage_agent.security.audit_file import AuditFile, verify
from sage_obs import testing
from sage_obs.errors import ConfigError

_KEY = b"0123456789abcdef"


def _file(path: Path, *, key: bytes = b"", max_bytes: int = 1 << 20, keep: int = 3) -> AuditFile:
    return AuditFile(path, key=key, max_bytes=max_bytes, keep=keep)


def _written(path: Path, count: int, *, key: bytes = b"") -> Head:
    file = _file(path, key=key)
    file.append([{"event": "e", "outcome": "done", "n": number} for number in range(count)])
    file.close()
    return file.head


def _swap(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[2], lines[1], *lines[3:]]


CHANGES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "changed": (lambda lines: [lines[0], lines[1].replace(b"done", b"gone"), *lines[2:]], "line 2 (record 2) was changed"),
    "the first changed": (lambda lines: [lines[0].replace(b"done", b"gone"), *lines[1:]], "line 1 (record 1) was changed"),
    "the last changed": (lambda lines: [*lines[:-1], lines[-1].replace(b"done", b"gone")], "record 5"),
    "removed": (lambda lines: [lines[0], *lines[2:]], "records 2 to 2 are missing before line 2"),
    "the first removed": (lambda lines: lines[1:], "records 1 to 1 are missing at the beginning"),
    "reordered": (_swap, "line 3 (record 2) is out of order"),
    "twice": (lambda lines: [*lines[:2], *lines[1:]], "line 3 (record 2) is out of order"),
    "cut short": (lambda lines: [*lines[:-1], lines[-1][:20]], "line 5 is no record"),
    "truncated": (lambda lines: lines[:-2], "records 4 to 5 are missing at the end"),
    "nonsense": (lambda lines: [*lines[:2], b"nonsense\n", *lines[2:]], "line 3 is no record"),
}


@pytest.mark.parametrize("key", [b"", _KEY], ids=["chained", "sealed"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_found_and_named(tmp_path: Path, name: str, key: bytes) -> None:
    """Which line it is, with and without a key; as it was written, nothing is wrong."""
    change, words = CHANGES[name]
    log = tmp_path / "audit.jsonl"
    _written(log, 5, key=key)
    assert verify(log, key=key).problems == []
    log.write_bytes(b"".join(change(log.read_bytes().splitlines(keepends=True))))
    assert any(words in problem for problem in verify(log, key=key).problems)


def test_without_the_key_no_chain_can_be_made_that_passes(tmp_path: Path) -> None:
    """A new chain, right in itself, with a head of its own, is refused line by line where there is a key."""
    log = tmp_path / "audit.jsonl"
    _written(log, 2, key=_KEY)
    head = audit_file.beside(log, "head").read_bytes()
    log.unlink()
    audit_file.beside(log, "head").unlink()
    _written(log, 2)
    with pytest.raises(ConfigError, match="another key"):
        verify(log, key=_KEY)
    audit_file.beside(log, "head").write_bytes(head)
    assert sum("HMAC is wrong" in problem for problem in verify(log, key=_KEY).problems) == 2


def test_a_log_that_was_put_back_to_an_earlier_state_is_found_by_a_record_that_was_noted(tmp_path: Path) -> None:
    """File and head of yesterday agree; the end that was noted since does not."""
    log = tmp_path / "audit.jsonl"
    _written(log, 2, key=_KEY)
    yesterday = {one: one.read_bytes() for one in (log, audit_file.beside(log, "head"))}
    end = _written(log, 2, key=_KEY)
    assert verify(log, key=_KEY, expected=[(end.seq, end.sha256)]).problems == []
    for one, data in yesterday.items():
        one.write_bytes(data)
    assert verify(log, key=_KEY).problems == []
    assert verify(log, key=_KEY, expected=[(end.seq, end.sha256)]).problems == ["records 3 to 4 are missing at the end"]


def test_a_line_cut_short_by_a_crash_is_marked_and_the_chain_goes_on(tmp_path: Path) -> None:
    """The fragment stays where it is, and the next record has its hash; another fragment in its place is found."""
    log = tmp_path / "audit.jsonl"
    _written(log, 2, key=_KEY)
    with log.open("ab") as file:
        file.write(b'{"seq":3,"event":"e","outc')
    _written(log, 1, key=_KEY)
    assert [json.loads(line)["event"] for line in log.read_text().splitlines()[3:]] == ["audit.recovered", "e"]
    assert verify(log, key=_KEY).problems == []
    log.write_bytes(log.read_bytes().replace(b'"outc\n', b'"oops\n'))
    assert verify(log, key=_KEY).problems == ["line 3 is no record: it was changed"]


def test_records_that_went_missing_while_nobody_wrote_stay_missing(tmp_path: Path) -> None:
    """The next process goes on from the end that was kept, not from the one that was made."""
    log = tmp_path / "audit.jsonl"
    _written(log, 4)
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:2]))
    _written(log, 1)
    assert verify(log, key=b"").problems == ["records 3 to 4 are missing before line 3"]


def test_a_large_file_is_set_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    """The chain runs through the parts; one more that is removed by hand is missed."""
    log = tmp_path / "audit.jsonl"
    file = _file(log, max_bytes=4096, keep=2)
    for number in range(200):
        file.append([{"event": "e", "n": number}])
    file.close()
    kept = audit_file.parts(log)
    verdict = verify(log, key=b"")
    assert (len(kept), verdict.problems, verdict.head.seq) == (2, [], 200)
    assert verdict.begins > 1
    kept[0].unlink()
    assert "are missing at the beginning" in verify(log, key=b"").problems[0]


def test_a_file_that_cannot_be_begun_leaves_the_one_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a free descriptor the log grows on, never into what has got its old one; with one again it is set aside, nothing lost."""
    log, real = tmp_path / "audit.jsonl", os.open
    file = _file(log, key=_KEY, max_bytes=300)

    def none_left(path: Any, *arguments: Any) -> int:
        if path == log:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", none_left)
    file.append([{"event": "one", "value": "x" * 300}])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        file.append([{"event": "two"}])
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
    monkeypatch.setattr(os, "open", real)
    for event in ("three", "four"):
        file.append([{"event": event}])
    file.close()
    assert [json.loads(line)["event"] for line in log.read_text().splitlines()] == ["four"]
    assert (len(audit_file.parts(log)), verify(log, key=_KEY).problems) == (1, [])


def test_parts_that_begin_with_a_line_cut_short_replace_none(tmp_path: Path) -> None:
    """Each is named by the first record in it, whatever stands before."""
    log = tmp_path / "audit.jsonl"
    for _ in range(2):
        log.write_bytes(b'{"seq":')
        _written(log, 1)
        file = _file(log, max_bytes=1)
        file.append([{"event": "e"}])
        file.close()
    assert [part.suffix for part in audit_file.parts(log)] == [".000000000001", ".000000000004"]
    assert verify(log, key=b"").problems == []


def test_two_processes_have_two_chains(tmp_path: Path) -> None:
    """Who comes second writes beside the first, and the next one goes on with what is free."""
    log = tmp_path / "audit.jsonl"
    one, two = _file(log), _file(log)
    one.append([{"event": "one"}])
    two.append([{"event": "two"}])
    assert [one.path.name, two.path.name] == ["audit.jsonl", "audit-2.jsonl"]
    one.close()
    three = _file(log)
    three.append([{"event": "three"}])
    assert (three.path, three.head.seq) == (log, 2)
    two.close()
    three.close()
    assert verify(log, key=b"").problems == verify(two.path, key=b"").problems == []


def test_a_log_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    """No folder can be made there, or the key is another one: said before anybody is served."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        _file(tmp_path / "file/audit.jsonl")
    _written(tmp_path / "a", 1, key=_KEY)
    with pytest.raises(ConfigError, match="another key"):
        _file(tmp_path / "a", key=_KEY[::-1])


def test_a_full_disk_stops_nobody_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Half a line is taken back; what was lost is counted, said once, and recorded as soon as there is room."""
    log, real = tmp_path / "audit.jsonl", os.write
    file = _file(log)
    full = True

    def write(fd: int, data: Any) -> int:
        if not full or fd != file._file:
            return real(fd, data)
        if len(data) < 50:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[: len(data) - 10])

    monkeypatch.setattr(os, "write", write)
    with testing.capture() as captured, caplog.at_level(logging.INFO, logger="sage_agent"):
        audit = AuditLog(file)
        for _ in range(3):
            audit.record("e", "done")
        _until(lambda: audit._failed == 3)
        full = False
        audit.record("f", "done")
        audit.finish()
        assert captured.value("sage_agent_audit_records_total", outcome="lost") == 3
    events = [(one["event"], one.get("count")) for one in map(json.loads, log.read_text().splitlines())]
    assert events == [("audit.lost", "3"), ("f", None)]
    assert sum("cannot be written" in line.message for line in caplog.records) == 1
    assert verify(log, key=b"").problems == []


def _until(done: Callable[[], bool]) -> None:
    for _ in range(10_000_000):
        if done():
            return
    raise AssertionError("it never came to that")


def test_of_many_refusals_the_number_is_written(tmp_path: Path) -> None:
    """Six hundred in a minute one by one; then how many more."""
    clock = [0.0]
    audit = AuditLog(_file(tmp_path / "a"), clock=lambda: clock[0])
    for _ in range(605):
        audit.refused("not proved", peer="192.0.2.1")
    clock[0] = 61.0
    audit.refused("not proved", peer="192.0.2.1")
    audit.finish()
    records = [json.loads(line) for line in (tmp_path / "a").read_text().splitlines()]
    assert len(records) == 602
    assert [one.get("count") for one in records[600:]] == ["5", None]


def test_a_queue_that_is_full_loses_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the disk; values that callers choose are cut."""
    monkeypatch.setattr("sage_agent.security.audit._WAITING", 2)
    monkeypatch.setattr(AuditLog, "_run", lambda _: None)
    audit = AuditLog(_file(tmp_path / "a"))
    for _ in range(5):
        audit.record("e", "done", value="x" * 5000)
    assert audit._overflown == 3
    waiting = audit._queue.get_nowait()
    assert waiting is not None
    assert len(waiting["value"]) == 512


def test_a_record_that_cannot_be_written_takes_no_other_with_it_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half characters are replaced; a defect costs the records at hand, and the thread goes on."""
    log, real, broken = tmp_path / "a", AuditFile.append, [True]

    def append(file: AuditFile, records: Any) -> None:
        if broken.pop() if broken else False:
            raise TypeError("a defect")
        real(file, records)

    monkeypatch.setattr(AuditFile, "append", append)
    audit = AuditLog(_file(log))
    audit.record("e", "done")
    _until(lambda: audit._failed == 1)
    audit.record("e", "done", actor="half \ud800")
    audit.finish()
    assert [one.get("actor") for one in map(json.loads, log.read_text().splitlines())] == [None, "half ?"]
    log.write_bytes(b"[" * 100_000 + b"\n")
    assert "line 1 is no record" in verify(log, key=b"").problems[0]


def test_the_command_says_which_line_and_ends_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0 for a log as it was written, with its end to be noted; the key is read as the agent reads it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGE_AUDIT_KEY", _KEY.decode())
    log = tmp_path / "audit.jsonl"
    end = _written(log, 3, key=_KEY)
    good = CliRunner().invoke(group, ["audit", "verify", str(log), "--expect", f"{end.seq}:{end.sha256}"])
    assert (good.exit_code, f"the end is 3:{end.sha256}" in good.output) == (0, True)
    log.write_bytes(log.read_bytes().replace(b'"n":1', b'"n":7'))
    bad = CliRunner().invoke(group, ["audit", "verify", str(log), "--json"])
    assert bad.exit_code == 1
    assert "line 2 (record 2) was changed" in json.loads(bad.output)["problems"][0]
