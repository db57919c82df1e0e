"""Layered settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_obs.errors import ConfigError
from sage_obs.settings import MASK, OPTIONS, Option, Settings, parse_seconds, parse_text, resolve


def test_argument_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    """Each layer wins over those below it, and the value says which layer it came from."""
    file = tmp_path / "config.yaml"
    file.write_text("agent: {id: from-file}\n")
    environ = {"SAGE_AGENT_ID": "from-env"}
    assert Settings.load(environ={}).agent_id == "agent-001"
    assert Settings.load(environ={}, file=file).agent_id == "from-file"
    assert Settings.load(environ=environ, file=file).agent_id == "from-env"
    settings = Settings.load(environ=environ, file=file, arguments={"agent_id": "argument"})
    assert settings.agent_id == "argument"
    assert settings.sources["agent_id"].source == "argument agent_id"


def test_every_field_has_an_option_and_every_option_a_field() -> None:
    """The table and the dataclass cannot drift apart."""
    assert {field.name for field in dataclasses.fields(Settings)} - {"sources"} == set(OPTIONS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agent: {idd: x}", r"unknown key `agent\.idd` \(did you mean `agent\.id`\?\)"),
        ("observability: {metrics: {prot: 1}}", r"did you mean `observability\.metrics\.port`"),
        ("observability: {metrics: {port: 70000}}", r"observability\.metrics\.port: expected a whole number from 0 to 65535"),
        ("tracing: {sampling_rate: .nan}", "expected a finite number"),
        ("tracing: {sampling_rate: 1.5}", "expected a number from 0 to 1"),
        ("observability: {logging: {level: inf}}", r"expected one of .*did you mean `info`"),
        ("a: [1", "line 1, column 6 is not valid YAML"),
        ("- 1", "holds a list where a mapping of settings is expected"),
        ("agent: {id: '${NOT_SET}'}", r"refers to \$\{NOT_SET\}, which is not set"),
    ],
)
def test_a_bad_file_is_an_error_that_says_what_and_where(tmp_path: Path, text: str, message: str) -> None:
    """The message names the file, the key and what was expected, with the nearest known name."""
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        Settings.load(environ={}, file=file)
    assert str(file) in str(caught.value)


def test_an_unreadable_file_is_an_error_that_says_why(tmp_path: Path) -> None:
    """A missing file, a folder and binary rubbish are told apart."""
    with pytest.raises(ConfigError, match="No such file"):
        Settings.load(environ={}, file=tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        Settings.load(environ={}, file=tmp_path)
    (tmp_path / "bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        Settings.load(environ={}, file=tmp_path / "bin")


def test_an_unknown_argument_is_an_error_with_a_suggestion() -> None:
    """A typo in code is found as one in a file is."""
    with pytest.raises(ConfigError, match="did you mean `metrics_port`"):
        Settings.load(environ={}, arguments={"metrics_prot": 1})


SECRETS = {"key": Option("llm.key", ("KEY",), parse_text, "", "a key", secret=True)}


def test_a_secret_is_read_from_a_file_and_masked_where_it_is_shown(tmp_path: Path) -> None:
    """`KEY_FILE` names the file; the value is not in what is shown."""
    (tmp_path / "key").write_text("s3cret\n")
    value = resolve(SECRETS, environ={"KEY_FILE": str(tmp_path / "key")})["key"]
    assert value.value == "s3cret"
    assert value.shown() == MASK
    assert "s3cret" not in repr(value)


def test_a_secret_that_cannot_be_used_is_not_quoted() -> None:
    """An error about a secret does not hold it."""

    def refuse(_: object) -> str:
        raise ValueError("too short")

    options = {"key": dataclasses.replace(SECRETS["key"], parse=refuse)}
    with pytest.raises(ConfigError) as caught:
        resolve(options, environ={"KEY": "s3cret"})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("text", "seconds"), [("300ms", 0.3), ("5m", 300.0), ("1h30m", 5400.0), (2, 2.0), ("2.5", 2.5)])
def test_durations_are_read_as_seconds_or_in_go_style(text: object, seconds: float) -> None:
    """Both ways of writing a duration mean the same."""
    assert parse_seconds(text) == pytest.approx(seconds)


@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    """No text makes the parser fail in another way, or yield something that is no duration."""
    try:
        seconds = parse_seconds(text)
    except ValueError:
        return
    assert 0 <= seconds < float("inf")
