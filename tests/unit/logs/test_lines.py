from __future__ import annotations

import json
import logging
import sys
from types import TracebackType
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import sage_obs
from sage_obs.logs.lines import KEYS, LONGEST_LINE, Identity, Lines
from sage_obs.logs.quick import QuickLines
from sage_obs.privacy.redaction import redact, telling
from sage_obs.tracing.context import Request, request_var

IDENTITY = Identity("a1", "shop", "1.2.3")
GUIDE = ["timestamp", "level", "message", "agent_id", "request_id", "trace_id", "duration_ms"]


class Hostile:
    """Raises whatever is asked of it."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def _record(message: object = "hello", *args: object, **extra: object) -> logging.LogRecord:
    record = logging.LogRecord("shop.orders", logging.INFO, __file__, 1, message, args, None)
    record.__dict__.update(extra)
    return record


def _raised() -> tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]:
    """An exception as logging has it."""
    try:
        int("broken")
    except ValueError:
        return sys.exc_info()
    raise AssertionError


def _json(record: logging.LogRecord) -> dict[str, Any]:
    line = Lines(IDENTITY).line(record)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def test_keys_come_in_the_guides_order() -> None:
    """The guide's seven first, then ours, then the caller's; timestamps are UTC with a Z and durations are numbers."""
    request_var.set(Request(request_id="r1", trace_id="ab" * 16, span_id="cd" * 8, sampled=True))
    with sage_obs.context(tenant="acme", conversation_id="c9"):
        record = _record("sold %d", 3, duration_ms=4.5, colour="red")
        record.exc_info = _raised()
        line = _json(record)
    request_var.set(None)
    assert list(line)[:7] == GUIDE
    assert list(line) == [*KEYS, "colour"]
    assert line["message"] == "sold 3"
    assert line["level"] == "info"
    assert line["duration_ms"] == 4.5
    assert line["timestamp"].endswith("Z")
    assert line["error.type"] == "ValueError"
    assert "ValueError: invalid literal" in line["error.stack"]
    assert (line["tenant"], line["conversation_id"], line["request_id"]) == ("acme", "c9", "r1")


def test_what_is_absent_is_left_out() -> None:
    """Outside a request there are no empty ids, and None is no value."""
    line = _json(_record(colour=None))
    assert list(line) == ["timestamp", "level", "message", "agent_id", "logger", "service", "version"]


def test_a_callers_extra_cannot_take_the_place_of_ours() -> None:
    """Identity keys are ours; ids and durations may be said better by the caller."""
    line = _json(_record(level="fatal", service="evil", request_id="theirs"))
    assert (line["level"], line["service"], line["request_id"]) == ("info", "shop", "theirs")
    assert (line["extra.level"], line["extra.service"]) == ("fatal", "evil")


@pytest.mark.parametrize(
    "record",
    [
        _record(Hostile()),
        _record("%s", Hostile()),
        _record("%d", "not a number"),
        _record("too %s few %s", 1),
        _record(x=Hostile()),
        _record(x={Hostile(): Hostile()}),
        _record(x=[Hostile(), {1: 2}]),
        _record(x=float("nan"), y=float("inf"), z=10**40),
        _record("\ud800", x="\udfff"),
        _record(x=b"\xff", y={1, 2}, z=object),
        _record("line\nbreak\r\u2028"),
    ],
)
def test_a_hostile_record_is_still_one_line(record: logging.LogRecord) -> None:
    """Whatever raises, loops or cannot be encoded, a JSON line comes out and nothing is raised."""
    assert _json(record)["agent_id"] == "a1"


def test_values_that_contain_themselves_end() -> None:
    """A structure with a loop becomes a bounded line."""
    loop: dict[str, object] = {}
    loop["self"] = loop
    assert len(Lines(IDENTITY).line(_record(x=loop))) < 100_000


@given(
    st.text(),
    st.dictionaries(st.text(min_size=1), st.recursive(st.none() | st.floats() | st.integers() | st.text() | st.binary(), st.lists)),
)
def test_every_record_becomes_one_json_line(message: str, extra: dict[str, object]) -> None:
    """Any message and any extras give exactly one line of valid JSON with the guide's fixed keys."""
    record = logging.LogRecord("x", logging.INFO, __file__, 1, message.replace("%", "%%"), (), None)
    record.__dict__.update({key: item for key, item in extra.items() if key not in record.__dict__})
    assert {"timestamp", "level", "message", "agent_id"} <= set(_json(record))


_TOKEN = st.text("abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789", min_size=20, max_size=60)
_AROUND = st.text(max_size=20)


@given(_TOKEN, _AROUND, _AROUND)
def test_a_secret_never_gets_through(secret: str, before: str, after: str) -> None:
    """In messages, extras and stacks, whatever stands around it, and the line stays JSON."""
    assume(secret not in before + after)
    shapes: list[dict[str, Any]] = [
        {"message": f"{before} Authorization: Bearer {secret} {after}"},
        {"message": f"{before} key sk-{secret} {after}"},
        {"message": f"{before} postgres://joe:{secret}@db/x {after}"},
        {"message": f"{before} password={secret} {after}"},
        {"message": f'{before} {{"api_key": "{secret}"}} {after}'},
        {"message": before, "openai_api_key": secret, "after": after},
        {"message": before, "headers": {"Authorization": secret}, "after": after},
        {"message": before, "client_secret": f'{secret}"\\{secret}', "after": after},
    ]
    for extra in shapes:
        message = extra.pop("message")
        record = logging.LogRecord("x", logging.INFO, __file__, 1, message.replace("%", "%%"), (), None)
        record.__dict__.update(extra)
        line = Lines(IDENTITY).line(record)
        assert secret.encode() not in line, (extra, message)
        json.loads(line)


@pytest.mark.parametrize(
    "line",
    [
        b'{"message":"bearer of bad news","token_count":12,"key":"value"}',
        b'{"message":"task-1 asked risk-aversion-desk https://host:8080/x"}',
        b'{"message":"the passwords are changed monthly","tokens":3}',
    ],
)
def test_ordinary_words_are_left_alone(line: bytes) -> None:
    """Nothing is hidden that is no secret."""
    assert redact(line) == line


def test_text_is_for_people() -> None:
    """One line with local time, level, logger, message and extras; the stack follows; line breaks cannot forge a line."""
    record = _record("a\nb", colour="red")
    record.exc_info = _raised()
    text = Lines(IDENTITY, text=True).line(record).decode()
    head, *stack = text.splitlines()
    assert "INFO" in head
    assert "shop.orders  a\\nb" in head
    assert "colour=red" in head
    assert stack[-1].startswith("ValueError: invalid literal")


KEY = "sk-abcdefghijklmnop1234"


@pytest.mark.parametrize("where", ["agent", "service", "logger", "request", "tenant", "message", "extra", "key", "exception"])
def test_a_secret_is_taken_out_wherever_a_line_has_it(where: str) -> None:
    """Only what callers say is searched, and everything that they can say is."""
    identity = Identity(KEY if where == "agent" else "a1", KEY if where == "service" else "shop", "1.2.3")
    record = _record(f"key {KEY}" if where == "message" else "hello")
    record.name = KEY if where == "logger" else "shop"
    if where in {"extra", "key"}:
        record.__dict__.update({"note": KEY} if where == "extra" else {KEY: 1})
    if where == "exception":
        try:
            int(KEY)
        except ValueError:
            record.exc_info = sys.exc_info()
    request_var.set(Request(KEY if where == "request" else "r1", "ab" * 16, "cd" * 8, sampled=False, named=True))
    try:
        with sage_obs.context(tenant=KEY if where == "tenant" else None):
            line = Lines(identity).line(record)
    finally:
        request_var.set(None)
    assert b"abcdefghijklmnop1234" not in line
    assert b"[REDACTED]" in line


def test_nothing_that_every_line_says_hints_at_a_secret() -> None:
    """The keys and values that are not searched hold no telling word, or a secret beside them would be missed."""
    request_var.set(Request("r1", "ab" * 16, "cd" * 8, sampled=False))
    try:
        assert not telling(Lines(IDENTITY).line(_record()))
    finally:
        request_var.set(None)
    assert not telling(" ".join(KEYS).encode())


def test_what_a_record_factory_adds_is_an_extra_whenever_it_was_set() -> None:
    """Extras are told from what every record has by the standard library's own records, not by whatever a factory makes of them."""
    before = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        record.__dict__["region"] = "north"
        return record

    logging.setLogRecordFactory(factory)
    try:
        lines = Lines(IDENTITY)
        made = logging.makeLogRecord({"msg": "hello", "colour": "red"})
    finally:
        logging.setLogRecordFactory(before)
    line = json.loads(lines.line(made))
    assert (line["region"], line["colour"]) == ("north", "red")
    assert json.loads(lines.line(_record(colour="red")))["colour"] == "red"


@pytest.mark.parametrize("value", ["x" * 10_000_000, [["y" * 10_000] * 900], {"a": ["z" * 900] * 900}], ids=["text", "list", "mapping"])
def test_a_line_has_an_end(value: object) -> None:
    """Texts of ten megabytes are cut, values with too many parts named, and everything else of the line is there."""
    record = _record("said %s", value, long=value, short="s")
    for lines in (Lines(IDENTITY), QuickLines(IDENTITY, Lines(IDENTITY))):
        line = lines.line(record)
        assert len(line) < 2 * LONGEST_LINE
        found = json.loads(line)
        assert found["message"].startswith("said ")
        assert (found["short"], found["service"]) == ("s", "shop")
        assert "long" in found
