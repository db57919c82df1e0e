"""Records of the audit log as a chain: each carries the SHA-256 of the line before it, and its own HMAC where there is a key."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from sage_obs.errors import ConfigError

GENESIS: Final = "0" * 64
"""What the first record carries in place of a hash."""
RECOVERED: Final = "audit.recovered"
"""The event of the record after a line that was cut short, which it names by its hash."""
_MAC: Final = b',"mac":"'
_MAC_TAIL: Final = len(_MAC) + 64 + len(b'"}')
_MOST_PROBLEMS: Final = 100


def sha256(data: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain ends: the number and hash of its last line. `first` is the number of the first line that is kept."""

    seq: int = 0
    sha256: str = GENESIS
    first: int = 1

    def dump(self, key: bytes) -> bytes:
        """As it is kept beside the log."""
        return _sealed({"seq": self.seq, "sha256": self.sha256, "first": self.first}, key)

    @classmethod
    def load(cls, line: bytes, key: bytes) -> Head | None:
        """What `dump` made; None for anything else, and where a key is given for what it did not seal."""
        found = _opened(line.rstrip(b"\n"), key)
        if found is None or (key and not found.authentic):
            return None
        seq, digest, first = (found.record.get(name) for name in ("seq", "sha256", "first"))
        if not isinstance(seq, int) or not isinstance(digest, str) or not isinstance(first, int):
            return None
        return cls(seq, digest, first)


def seal(record: Mapping[str, Any], head: Head, key: bytes) -> tuple[bytes, Head]:
    """The line of the next record, without its end of line, and where the chain ends with it."""
    line = _sealed({"seq": head.seq + 1, **record, "prev": head.sha256}, key)
    return line, Head(head.seq + 1, sha256(line), head.first)


def _sealed(record: Mapping[str, Any], key: bytes) -> bytes:
    body = orjson.dumps(record)
    if not key:
        return body
    return body[:-1] + _MAC + hmac.new(key, body, hashlib.sha256).hexdigest().encode() + b'"}'


@dataclass(frozen=True, slots=True)
class _Opened:
    record: Mapping[str, Any]
    authentic: bool


def _opened(line: bytes, key: bytes) -> _Opened | None:
    """A line as a record, and whether its HMAC is right; None where it is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    body, tail = line[:-_MAC_TAIL] + b"}", line[-_MAC_TAIL:]
    if not key or not tail.startswith(_MAC):
        return _Opened(record, authentic=False)
    expected = _MAC + hmac.new(key, body, hashlib.sha256).hexdigest().encode() + b'"}'
    return _Opened(record, authentic=hmac.compare_digest(tail, expected))


def last_of(tail: bytes, key: bytes, first: int) -> tuple[Head, bytes]:
    """Where the lines at the end of a file leave a chain, and what was cut short after them."""
    whole, _, rest = tail.rpartition(b"\n")
    for line in reversed(whole.split(b"\n")):
        found = _opened(line, key)
        if found is not None and isinstance(found.record.get("seq"), int):
            return Head(found.record["seq"], sha256(line), first), rest
    return Head(first=first), rest


@dataclass(slots=True)
class Verdict:
    """What was found: how many lines, from which to which record, and what is wrong with which of them."""

    lines: int = 0
    begins: int = 0
    head: Head = field(default_factory=Head)
    sealed: bool = True
    problems: list[str] = field(default_factory=list)

    def say(self, problem: str) -> None:
        """One more thing that is wrong."""
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(problem)


class Verifier:
    """Follows a chain line by line; what is wrong is said, and the chain followed on from there."""

    def __init__(self, key: bytes = b"") -> None:
        self._key = key
        self._torn: tuple[int, bytes] | None = None
        self._digests: dict[int, str] = {}
        self.verdict = Verdict(sealed=bool(key))

    def follow(self, lines: Iterable[bytes], *, wanted: Iterable[int] = ()) -> None:
        """Go through lines with their ends, remembering the hashes of the records `wanted`."""
        remember = frozenset(wanted)
        for ended in lines:
            self.verdict.lines += 1
            self._line(ended, remember)

    def finish(self, kept: Head | None, expected: Iterable[tuple[int, str]] = ()) -> Verdict:
        """Compare the end with the one kept beside the log, and with those the operator noted. `follow` was to remember them."""
        verdict = self.verdict
        if self._torn is not None:
            verdict.say(f"line {self._torn[0]} is no record: it was changed, or cut short and nobody went on after it")
        for seq, digest in [*([(kept.seq, kept.sha256)] if kept is not None and kept.seq else []), *expected]:
            if seq > verdict.head.seq:
                verdict.say(f"records {verdict.head.seq + 1} to {seq} are missing at the end")
            elif seq >= (verdict.begins or 1) and self._digests.get(seq) != digest:
                verdict.say(f"record {seq} is another than the one that was noted: it was changed")
            elif seq < verdict.begins:
                verdict.say(f"record {seq} was noted, and is not there any more")
        if kept is not None and kept.seq and verdict.begins > kept.first:
            verdict.say(f"records {kept.first} to {verdict.begins - 1} are missing at the beginning")
        return verdict

    def _line(self, ended: bytes, remember: frozenset[int]) -> None:
        number, line = self.verdict.lines, ended.removesuffix(b"\n")
        found = _opened(line, self._key) if ended.endswith(b"\n") else None
        seq = None if found is None else found.record.get("seq")
        if found is None or not isinstance(seq, int):
            if self._torn is not None:
                self.verdict.say(f"line {self._torn[0]} is no record: it was changed")
            self._torn = number, line
            return
        if self._key and not found.authentic:
            self.verdict.say(f"line {number} (record {seq}) was changed, or written without the key: its HMAC is wrong")
        self._after_torn(found.record)
        self._place(number, seq, found.record)
        self.verdict.head = Head(seq, sha256(line))
        if seq in remember:
            self._digests[seq] = self.verdict.head.sha256

    def _after_torn(self, record: Mapping[str, Any]) -> None:
        """A line that was cut short is all right where the next one says so."""
        if self._torn is None:
            return
        (number, torn), self._torn = self._torn, None
        if record.get("event") != RECOVERED or record.get("cut") != sha256(torn):
            self.verdict.say(f"line {number} is no record: it was changed")

    def _place(self, number: int, seq: int, record: Mapping[str, Any]) -> None:
        head, expected = self.verdict.head, self.verdict.head.seq + 1
        if not self.verdict.begins:
            self.verdict.begins = seq
            if seq == 1 and record.get("prev") != GENESIS:
                self.verdict.say(f"line {number} (record 1) was changed: nothing comes before it")
        elif seq > expected:
            self.verdict.say(f"records {expected} to {seq - 1} are missing before line {number}")
        elif seq < expected:
            self.verdict.say(f"line {number} (record {seq}) is out of order, or there twice")
        elif record.get("prev") != head.sha256:
            self.verdict.say(f"line {number - 1} (record {head.seq}) was changed: line {number} has another hash of it")


def parse_expected(text: str) -> tuple[int, str]:
    """A record that was noted, `SEQ:SHA256`. Raises ConfigError."""
    seq, _, digest = text.partition(":")
    if not seq.isdigit() or len(digest) != len(GENESIS):
        raise ConfigError(f"{text!r} names no record.", hint="Write SEQ:SHA256, as `sage-agent audit verify` prints it.")
    return int(seq), digest.lower()
