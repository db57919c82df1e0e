"""What may stand behind the question mark, and who may ask."""

from __future__ import annotations

import base64

import pytest

from sage_obs.errors import ConfigError
from sage_obs.profiling.guard import Guard, is_loopback
from sage_obs.profiling.pages import redacted
from sage_obs.profiling.parameters import BadParameterError, parse


@pytest.mark.parametrize(
    ("query", "seconds"),
    [("", 30), ("seconds=5", 5), ("seconds=0", 30), ("seconds=-3", 30), ("seconds=x", 30), ("seconds=1e9", 30), ("seconds=999999999", 120)],
)
def test_the_processors_profile_takes_any_seconds(query: str, seconds: int) -> None:
    """As in Go, what cannot be used is 30; no more than the cap is ever waited."""
    assert parse(query, lenient=True).seconds == seconds


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("seconds=0", '"seconds" - must be a positive integer'),
        ("seconds=-1", "positive"),
        ("seconds=1e9", "positive"),
        ("seconds=1&debug=1", "incompatible"),
        ("hz=0", '"hz"'),
        ("hz=100000", "1 to 500"),
        ("mode=idle", "cpu, wall"),
        ("format=svg", "flamegraph"),
        ("pid=x", '"pid"'),
        ("&".join(f"a{number}=1" for number in range(40)), "cannot be read"),
        ("a=" + "x" * 3000, "2048"),
    ],
)
def test_the_others_say_what_is_wrong(query: str, why: str) -> None:
    """A parameter that cannot be used is named, with what may stand there."""
    with pytest.raises(BadParameterError, match=why):
        parse(query, lenient=False)


def test_other_seconds_are_capped_and_debug_is_lenient() -> None:
    """A billion seconds are two minutes, and a level of debug that is none is 0."""
    assert parse("seconds=1000000000", lenient=False).seconds == 120
    assert parse("", lenient=False).seconds is None
    assert [parse(f"debug={text}", lenient=False).debug for text in ("", "x", "1", "2", "7")] == [0, 0, 1, 2, 2]


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "10.1.2.3", "example.org"])
def test_an_open_address_takes_a_token(host: str) -> None:
    """Without one it is an error that says what to set; with one it is not, and the token is never in the words."""
    with pytest.raises(ConfigError, match="SAGE_PROFILING_TOKEN"):
        Guard(host, "")
    Guard(host, "s3cret")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer s3cret:ü", 0),
        (f"Basic {base64.b64encode('anybody:s3cret:ü'.encode()).decode()}", 0),
        (f"basic {base64.b64encode('s3cret:ü'.encode()).decode()}", 401),
        ("Bearer s3cret", 401),
        ("Bearer", 401),
        ("Basic !!!", 401),
        ("s3cret:ü", 401),
        ("", 401),
    ],
)
def test_the_token_comes_by_bearer_or_by_basic(header: str, status: int) -> None:
    """Whoever has it is let in from anywhere, under any name; nobody else is."""
    sent = header.encode().decode("latin-1")
    refusal = Guard("0.0.0.0", "s3cret:ü").refusal({"authorization": sent, "host": "example.org"})
    assert (refusal.status if refusal else 0) == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:6060", 0),
        ("127.0.0.1:6060", 0),
        ("[::1]:6060", 0),
        ("localhost", 0),
        ("evil.example:6060", 403),
        ("localhost.evil.example", 403),
        ("10.0.0.1", 403),
    ],
)
def test_without_a_token_the_request_is_for_this_machine(host: str, status: int) -> None:
    """A web page that has a name of its own lead here is refused."""
    refusal = Guard("127.0.0.1", "").refusal({"host": host})
    assert (refusal.status if refusal else 0) == status


def test_loopback_is_more_than_one_address() -> None:
    """All of 127.0.0.0/8, ::1 and the names of it."""
    assert all(map(is_loopback, ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "a.localhost"]))
    assert not any(map(is_loopback, ["", "128.0.0.1", "localhost.example.org", "::"]))


def test_a_command_line_is_shown_without_secrets() -> None:
    """Neither a key that is seen to be one, nor what follows an option of that kind, nor a password in an address."""
    words = ["app", "--api-key", "abcd1234", "--db-password=hunter22", "--port", "80", "sk-abcdefghijklmnopqrstuvwx"]
    shown = redacted(words)
    assert shown[:2] == ["app", "--api-key"]
    assert shown[4:6] == ["--port", "80"]
    assert not any(secret in "\0".join(shown) for secret in ("abcd1234", "hunter22", "abcdefghijklmn"))
