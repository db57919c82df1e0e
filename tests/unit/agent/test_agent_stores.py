"""Which store the settings mean."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Any

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
        ({"SAGE_DB_CONNECTION_STRING": "postgresql://u:hunter2%zz@h/d"}, "cannot be read as an address"),
        ({"SAGE_DB_CONNECTION_STRING": "redis://:hunter2/x@h:6379/0"}, "cannot be read as an address"),
        ({"SAGE_DB_CONNECTION_STRING": "redis://[hunter2"}, "cannot be read as an address"),
    ],
    ids=["two kinds", "another database", "more idle than open", "no time", "a bare %", "a bare /", "a bare ["],
)
def test_what_makes_no_sense_is_refused(environ: dict[str, str], sentence: str) -> None:
    """Two answers to one question are an error, without the password."""
    with pytest.raises(ConfigError, match=sentence) as error:
        config.load(file=None, environ=environ)
    assert "hunter2" not in f"{error.value} {error.value.hint}"


@pytest.mark.parametrize("url", ["postgresql://u:hunter2@h/d?hunter2=1", "redis://:hunter2@h/0?max_connections=hunter2"])
def test_an_address_that_only_its_client_cannot_read_is_refused_without_it(url: str) -> None:
    """At the start and when it is renewed; what the client says of it, which quotes it, is nowhere in the traceback."""
    with pytest.raises(ConfigError, match="cannot be read as an address") as error:
        make_state(config.load(file=None, environ={"SAGE_DB_CONNECTION_STRING": url}).state)
    assert "hunter2" not in "".join(traceback.format_exception(error.value))
    good = config.load(file=None, environ={"SAGE_DB_CONNECTION_STRING": url.partition("?")[0]}).state
    state, _ = make_state(good)
    with pytest.raises(ConfigError, match="cannot be read as an address"):
        state.store.renew(url)


@pytest.mark.parametrize(
    ("environ", "checked"),
    [
        ({"SAGE_DB_CONNECTION_STRING": "rediss://h/0"}, True),
        ({"SAGE_DB_CONNECTION_STRING": "rediss://h/0?ssl_cert_reqs=none"}, None),
        ({"SAGE_DB_CONNECTION_STRING": "rediss://h/0?ssl_check_hostname=false"}, False),
        ({"SAGE_STORAGE_TYPE": "redis", "SAGE_STORAGE_TLS": "verify-full"}, True),
        ({"SAGE_STORAGE_TYPE": "redis"}, None),
    ],
    ids=["by address", "unverified", "as it was asked", "by values", "plain"],
)
def test_redis_over_tls_is_the_host_it_was_meant_to_be(environ: dict[str, str], *, checked: bool | None) -> None:
    """Its name is checked, whatever the client's version does by itself, unless somebody has said that nothing is."""
    store: Any = make_state(config.load(file=None, environ=environ).state)[0].store
    assert store._pool.connection_kwargs.get("ssl_check_hostname") is checked


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
