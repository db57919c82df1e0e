from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import granian.log
import pytest
import uvicorn
from gunicorn.config import Config
from gunicorn.glogging import Logger

import sage_obs
from sage_obs.integrations.loggers import LoggerState
from sage_obs.integrations.patch import recording

Start = Callable[..., sage_obs.Handle]
NAMES = ("gunicorn.error", "gunicorn.access", "_granian", "granian.access")


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """The servers' loggers as they were."""
    found = {name: (LoggerState.of(name), logging.getLogger(name).level) for name in NAMES}
    yield
    for name, (state, level) in found.items():
        state.put(name)
        logging.getLogger(name).setLevel(level)


def _gunicorn() -> None:
    config = Config()
    config.set("accesslog", "-")
    Logger(config)


def _granian() -> None:
    granian.log.configure_logging(granian.log.LogLevels.info)


@pytest.mark.parametrize(
    ("library", "set_up", "errors", "access"),
    [("gunicorn", _gunicorn, "gunicorn.error", "gunicorn.access"), ("granian", _granian, "_granian", "granian.access")],
)
def test_a_servers_loggers_go_through_ours_whenever_it_sets_them_up(
    instrument: Start, tmp_path: Path, library: str, set_up: Callable[[], None], errors: str, access: str
) -> None:
    """Before and after its set-up its error log is ours and its access log silent; afterwards both are as it had set them up."""
    set_up()
    before = {name: LoggerState.of(name) for name in NAMES}
    instrument(log_output=str(tmp_path / "log"), libraries=[library])
    for again in (False, True):
        if again:
            set_up()
        logging.getLogger(errors).error("from the server")
        assert not logging.getLogger(access).hasHandlers()
    sage_obs.flush()
    assert (tmp_path / "log").read_text().count('"message":"from the server"') == 2
    sage_obs.uninstrument()
    after = {name: LoggerState.of(name) for name in NAMES}
    assert {name: (len(state.handlers), state.propagate) for name, state in after.items()} == {
        name: (len(state.handlers), state.propagate) for name, state in before.items()
    }
    assert after[errors].handlers
    assert after[access].handlers
    set_up()
    assert LoggerState.of(errors).handlers


@pytest.mark.parametrize("library", ["gunicorn", "granian"])
def test_without_our_logs_a_servers_loggers_stay_its_own(instrument: Start, library: str) -> None:
    """Where there are no lines of ours its loggers are not touched."""
    assert instrument(logs=False).status()[library].why == "logs are off"


def test_without_our_logs_uvicorns_loggers_stay_its_own_and_what_waits_is_still_sent(instrument: Start) -> None:
    """The flush before uvicorn ends itself by a signal has nothing to do with logs."""
    before = {name: LoggerState.of(name) for name in ("uvicorn", "uvicorn.access")}
    with recording() as replaced:
        assert instrument(logs=False, libraries=["uvicorn"]).status()["uvicorn"].on
    ends_by_the_signal = hasattr(uvicorn.Server, "_serve")  # older ones return, and the process ends as any other
    assert ("_serve" in {one.attribute for one in replaced}) is ends_by_the_signal
    assert {name: LoggerState.of(name) for name in before} == before
