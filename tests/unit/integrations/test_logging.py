from __future__ import annotations

import configparser
import logging
import logging.config
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.logging import RichHandler

import sage_obs
from sage_obs import records

Start = Callable[..., sage_obs.Handle]
SetUp = Callable[[Path], None]


def _loggers() -> list[logging.Logger]:
    return [one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)]


@pytest.fixture(autouse=True)
def root() -> Iterator[logging.Logger]:
    """The root logger, and all the others, which configurations disable, as they were."""
    found = logging.getLogger()
    handlers, level = list(found.handlers), found.level
    disabled = {one: one.disabled for one in _loggers()}
    yield found
    for handler in found.handlers:
        if handler not in handlers:
            handler.close()
    found.handlers[:] = handlers
    found.setLevel(level)
    for one in _loggers():
        one.disabled = disabled.get(one, False)


def _by_dict(folder: Path) -> None:
    handlers: dict[str, Any] = {
        "stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"},
        "file": {"class": "logging.FileHandler", "filename": str(folder / "theirs")},
    }
    logging.config.dictConfig({"version": 1, "handlers": handlers, "root": {"level": "INFO", "handlers": [*handlers]}})


def _by_file(folder: Path) -> None:
    parser = configparser.ConfigParser()
    parser.read_dict(
        {
            "loggers": {"keys": "root"},
            "handlers": {"keys": "stdout,file"},
            "formatters": {"keys": ""},
            "logger_root": {"level": "INFO", "handlers": "stdout,file"},
            "handler_stdout": {"class": "StreamHandler", "args": "(sys.stdout,)"},
            "handler_file": {"class": "FileHandler", "args": f"({str(folder / 'theirs')!r},)"},
        }
    )
    logging.config.fileConfig(parser)


def _by_force(folder: Path) -> None:
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout), logging.FileHandler(folder / "theirs")]
    logging.basicConfig(level="INFO", force=True, handlers=handlers)


@pytest.mark.parametrize("set_up", [_by_dict, _by_file, _by_force])
def test_lines_go_on_where_the_application_sets_the_root_logger_up(
    instrument: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str], root: logging.Logger, set_up: SetUp
) -> None:
    """Ours is still there and what writes to stdout rests; the file is written to, and afterwards all is as the application had it."""
    instrument(log_output=str(tmp_path / "ours"))
    set_up(tmp_path)
    logging.getLogger(f"app{set_up.__name__}").info("after")
    logging.getLogger("sage_obs").warning("of itself")
    sage_obs.flush()
    assert (tmp_path / "ours").read_text().count('"message":"after"') == 1
    assert '"message":"of itself"' in (tmp_path / "ours").read_text()
    assert (tmp_path / "theirs").read_text().splitlines()[0].endswith("after")
    assert "after" not in capfd.readouterr().out
    sage_obs.uninstrument()
    assert [type(one) for one in root.handlers] == [logging.StreamHandler, logging.FileHandler]
    logging.getLogger(f"app{set_up.__name__}").info("at last")
    assert "at last" in capfd.readouterr().out


def test_a_handler_that_was_taken_out_by_itself_stays_out(instrument: Start, tmp_path: Path, root: logging.Logger) -> None:
    """The application has said that it wants no lines of ours there, and a configuration after that brings none."""
    instrument(log_output=str(tmp_path / "ours"))
    ours = records.handler()
    assert ours is not None
    root.removeHandler(ours)
    _by_force(tmp_path)
    assert ours not in root.handlers
    assert len(root.handlers) == 2


def test_a_configuration_that_fails_takes_no_lines_along(instrument: Start, tmp_path: Path, root: logging.Logger) -> None:
    """Its exception is the application's, and ours is still there."""
    instrument(log_output=str(tmp_path / "ours"))
    with pytest.raises(ValueError, match="Unable to configure"):
        logging.config.dictConfig({"version": 1, "root": {"handlers": ["nowhere"]}})
    assert records.handler() in root.handlers


def test_a_handler_with_a_console_is_on_the_terminal_too(instrument: Start, tmp_path: Path, root: logging.Logger) -> None:
    """What rich prints would stand on stdout beside our line."""
    instrument(log_output=str(tmp_path / "ours"))
    logging.basicConfig(force=True, handlers=[RichHandler(console=Console(file=sys.stdout))])
    assert root.handlers == [records.handler()]


def test_what_only_changes_a_level_is_left_alone(instrument: Start, tmp_path: Path, root: logging.Logger) -> None:
    """An incremental configuration takes no handler away, and its level holds."""
    instrument(log_output=str(tmp_path / "ours"))
    logging.config.dictConfig({"version": 1, "incremental": True, "root": {"level": "ERROR"}})
    assert root.level == logging.ERROR
    assert root.handlers == [records.handler()]
