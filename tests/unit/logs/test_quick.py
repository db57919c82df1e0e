from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_obs.logs.lines import KEYS, Identity, Lines
from sage_obs.logs.quick import QuickLines
from sage_obs.privacy.redaction import any_of
from sage_obs.tracing.ambient import CONVERSATION_ID, TENANT
from sage_obs.tracing.context import Request, ambient_var, request_var

IDENTITY = Identity("a1", "shop", "1.2.3")
SECRETS = (
    "password: hunter2hunter2",
    "Bearer abcdefghijklmnop",
    "sk-abcdefghijklmnopqrst",
    "https://u:topsecret99@host/",
    "token=value1234567",
)


class _Raising:
    def __str__(self) -> str:
        raise ValueError("no text")


TEXT = st.one_of(st.text(max_size=20), st.sampled_from([*SECRETS, "\ud800", 'a"b\\', "password", "api_key", "\x00\n"]))
VALUES = st.one_of(
    TEXT,
    st.integers(),
    st.floats(),
    st.none(),
    st.booleans(),
    st.just(_Raising()),
    st.lists(TEXT, max_size=2),
    st.dictionaries(TEXT, TEXT, max_size=2),
)
NAMES = st.one_of(st.sampled_from([*KEYS, "colour", "password", "token_count", "message2", "taskName"]), st.text(max_size=8))
IDS = st.text(alphabet="abcdef0123456789-", min_size=1, max_size=12) | st.just("token=0123456789")


def _record(message: str, args: tuple[Any, ...], extras: Mapping[str, Any], *, level: int, name: str, created: float) -> logging.LogRecord:
    record = logging.LogRecord(name, level, __file__, 1, message, args, None)
    record.created = created
    for key, value in extras.items():
        record.__dict__.setdefault(key, value)
    return record


def _parsed(line: bytes) -> tuple[list[str], dict[str, Any], datetime]:
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    found = json.loads(line)
    return list(found), {key: value for key, value in found.items() if key != "timestamp"}, datetime.fromisoformat(found["timestamp"])


@given(
    message=TEXT,
    args=st.tuples() | st.tuples(VALUES),
    extras=st.dictionaries(NAMES, VALUES, max_size=3),
    level=st.sampled_from([10, 20, 40, 45]),
    name=TEXT,
    created=st.floats(min_value=0, max_value=4e9),
    request=st.none() | st.builds(Request, IDS, st.just("ab" * 16), st.just("cd" * 8), sampled=st.just(False), named=st.just(True)),
    around=st.none() | st.dictionaries(st.sampled_from([CONVERSATION_ID, TENANT]), TEXT, max_size=2),
)
def test_the_quick_way_says_what_the_thorough_way_says(  # noqa: PLR0917 - one argument for each thing a line depends on
    message: str,
    args: tuple[Any, ...],
    extras: dict[str, Any],
    level: int,
    name: str,
    created: float,
    request: Request | None,
    around: dict[str, str] | None,
) -> None:
    """The same keys in the same order with the same values, whatever a record and its surroundings hold."""
    record = _record(message, args, extras, level=level, name=name, created=created)
    thorough = Lines(IDENTITY)
    before, outside = request_var.set(request), ambient_var.set(around)
    try:
        quick = QuickLines(IDENTITY, thorough).line(record)
        keys, said, at = _parsed(thorough.line(record))
    finally:
        request_var.reset(before)
        ambient_var.reset(outside)
    assert _parsed(quick)[:2] == (keys, said)
    assert abs(_parsed(quick)[2] - at) <= timedelta(microseconds=1)


def test_ordinary_records_go_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument, extras, a request and an identity are no reason for the other way; an exception and an id of the caller's are."""
    asked: list[logging.LogRecord] = []

    def line(_lines: Lines, record: logging.LogRecord) -> bytes:
        asked.append(record)
        return b"{}\n"

    monkeypatch.setattr(Lines, "line", line)
    lines = QuickLines(IDENTITY, Lines(IDENTITY))
    before, outside = request_var.set(Request("r", "ab" * 16, "cd" * 8, sampled=False)), ambient_var.set({TENANT: "t"})
    try:
        lines.line(_record("order %d", (1,), {"shop": "north"}, level=20, name="x", created=1.0))
        assert asked == []
        lines.line(_record("order", (), {"trace_id": "mine"}, level=20, name="x", created=1.0))
        lines.line(logging.LogRecord("x", 40, __file__, 1, "failed", (), (ValueError, ValueError(), None)))
    finally:
        request_var.reset(before)
        ambient_var.reset(outside)
    assert len(asked) == 2


def test_what_is_kept_of_loggers_that_never_come_again_is_bounded() -> None:
    """A program that makes up logger names does not fill the memory."""
    lines = QuickLines(IDENTITY, Lines(IDENTITY))
    for number in range(5000):
        lines.line(_record("x", (), {}, level=20, name=f"n{number}", created=1.0))
    assert len(lines._known) <= 2048


@given(
    words=st.lists(st.text(alphabet="abkz:-/ y", min_size=1, max_size=5), min_size=1, max_size=4),
    text=st.text(alphabet="abkz:-/ y", max_size=30),
)
def test_a_word_is_found_wherever_it_stands(words: list[str], text: str) -> None:
    """The pattern finds exactly the texts that have one of its words in them."""
    assert (any_of(words).search(text.encode()) is not None) == any(word in text for word in words)
