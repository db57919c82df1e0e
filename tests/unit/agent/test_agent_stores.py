"""Which store the settings mean."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sage_agent import config
from sage_agent.state.open import MissingStoreError, make_state
from sage_obs.errors import ConfigError


def test_by_default_it_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite below the working directory, which is made."""
    monkeypatch.chdir(tmp_path)
    state, notice = make_state(config.load(file=None, environ={}).state)
    assert (state.store.kind, notice) == ("sqlite", "")


def test_a_default_file_that_cannot_be_made_gives_way_to_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody chose, an agent in a read-only place starts all the same, and says that nothing is kept."""
    monkeypatch.chdir(tmp_path)
    Path(".sage-agent").touch()
    state, notice = make_state(config.load(file=None, environ={}).state)
    assert state.store.kind == "memory"
    assert "ends with this process" in notice
    assert "SAGE_STORAGE_PATH" in notice


def test_a_default_file_that_is_not_ours_gives_way_to_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is there and cannot be written is no store."""
    monkeypatch.chdir(tmp_path)
    Path(".sage-agent").mkdir()
    Path(".sage-agent/state.db").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert make_state(config.load(file=None, environ={}).state)[0].store.kind == "memory"


@pytest.mark.parametrize(
    ("environ", "kind"),
    [
        ({"SAGE_STORAGE_TYPE": "memory"}, "memory"),
        ({"SAGE_STORAGE_TYPE": "Postgres"}, "postgres"),
        ({"SAGE_DB_CONNECTION_STRING": "postgresql://h/d"}, "postgres"),
        ({"SAGE_DB_CONNECTION_STRING": "postgres://h/d"}, "postgres"),
        ({"SAGE_DB_CONNECTION_STRING": "rediss://h"}, "redis"),
        ({"SAGE_DB_CONNECTION_STRING": "sqlite:///data/s.db", "SAGE_STORAGE_TYPE": "sqlite"}, "sqlite"),
    ],
    ids=lambda value: ",".join(value.values()) if isinstance(value, dict) else None,
)
def test_the_type_or_the_address_decides(environ: dict[str, str], kind: str) -> None:
    """One of them is enough."""
    loaded = config.load(file=None, environ=environ)
    assert (loaded.state.kind, loaded.state.asked) == (kind, True)


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"SAGE_STORAGE_TYPE": "sqlite", "SAGE_DB_CONNECTION_STRING": "redis://:hunter2@h"}, "is one of redis"),
        ({"SAGE_DB_CONNECTION_STRING": "mysql://:hunter2@h"}, "starts with postgresql://|no reader"),
        ({"SAGE_DB_MAX_IDLE_CONNS": "9", "SAGE_DB_MAX_OPEN_CONNS": "8"}, "more than max_open_conns"),
        ({"SAGE_STORAGE_TIMEOUT": "0"}, "100ms to 60s"),
    ],
    ids=["two kinds", "another database", "more idle than open", "no time"],
)
def test_what_makes_no_sense_is_refused(environ: dict[str, str], sentence: str) -> None:
    """Two answers to one question are an error, without the password."""
    with pytest.raises(ConfigError, match=sentence) as error:
        config.load(file=None, environ=environ)
    assert "hunter2" not in f"{error.value} {error.value.hint}"


@pytest.mark.parametrize(("kind", "module"), [("postgres", "psycopg_pool"), ("redis", "redis")])
def test_a_client_that_is_not_installed_is_named(kind: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to type."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingStoreError) as error:
        make_state(config.load(file=None, environ={"SAGE_STORAGE_TYPE": kind}).state)
    assert error.value.hint == f"pip install 'sage-obs[{kind}]'"


def test_workers_without_a_common_store_are_remarked() -> None:
    """Each would admit what all of them together may."""
    environ = {"SAGE_STORAGE_TYPE": "memory", "SAGE_SERVER_WORKERS": "4"}
    (notice,) = config.load(file=None, environ=environ).notices
    assert "4 times" in notice
