from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import sage_obs
from sage_obs.conventions import COMPONENT_UP
from sage_obs.errors import ConfigError, SageObsError
from tests.support.asgi import answering
from tests.support.metrics import value

Start = Callable[..., sage_obs.Handle]


def _world() -> dict[str, object]:
    """What instrument() may change in a process, apart from the libraries."""
    from prometheus_client import REGISTRY

    root = logging.getLogger()
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "handlers": list(root.handlers),
        "level": root.level,
        "hooks": list(sys.meta_path),
        "metrics": sorted(family.name for family in REGISTRY.collect()),
    }


def test_the_round_trip_leaves_the_process_as_it_was(instrument: Start) -> None:
    """instrument() and uninstrument() are the identity on threads, loggers, import hooks and registry."""
    before = _world()
    instrument()
    assert _world() != before
    sage_obs.uninstrument()
    sage_obs.uninstrument()
    assert _world() == before


def test_equal_settings_again_change_nothing_and_others_start_anew(instrument: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handle is the same for equal values, wherever they come from; a different value restarts."""
    first = instrument()
    assert instrument() is first
    monkeypatch.setenv("SAGE_LOG_LEVEL", "info")
    assert instrument() is first
    second = instrument(log_level="debug")
    assert second is not first
    assert logging.getLogger().level == logging.DEBUG
    assert second.status()["logs"].on
    assert str(first.status()["logs"]) == "off: uninstrumented"
    assert first.metrics_port is None


def test_status_says_what_is_on_and_why_the_rest_is_off(instrument: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A switch names its source, `disable` is named, and the gauge agrees with status."""
    monkeypatch.setenv("SAGE_LOGS_ENABLED", "false")
    handle = instrument(disable=["starlette"], traces=False)
    status = handle.status()
    assert status["logs"].why == "switched off by environment SAGE_LOGS_ENABLED"
    assert status["traces"].why == "switched off by argument traces"
    assert status["starlette"].why == "in `disable`"
    assert status["gunicorn"].why == "logs are off"
    assert status["httpx"].why == "traces are off"
    for name, component in status.items():
        assert value(COMPONENT_UP, component=name) == float(component.on)


def test_the_master_switch_switches_everything_off(instrument: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """SAGE_OBSERVABILITY_ENABLED=false means nothing starts, and what ran stops."""
    before = _world()
    instrument()
    monkeypatch.setenv("SAGE_OBSERVABILITY_ENABLED", "false")
    handle = instrument()
    assert _world() == before
    assert str(handle.status()["sage_obs"]) == "off: switched off by environment SAGE_OBSERVABILITY_ENABLED"
    assert handle.metrics_port is None


def test_a_setting_that_cannot_be_used_is_reported_and_raised_only_if_strict(
    instrument: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The application starts without telemetry and is told why; strict raises."""
    monkeypatch.setenv("SAGE_LOG_LEVEL", "loud")
    handle = instrument(strict=False)
    assert "SAGE_LOG_LEVEL" in handle.status()["sage_obs"].why
    assert "telemetry is off" in caplog.text
    with pytest.raises(ConfigError, match="SAGE_LOG_LEVEL"):
        instrument()


def test_a_name_that_nothing_has_cannot_be_disabled(instrument: Start) -> None:
    """A slip in `disable` is told, with the names there are."""
    with pytest.raises(ConfigError, match=r"`htpx`.*httpx"):
        instrument(disable=["htpx"])


@pytest.mark.parametrize(
    "arguments",
    [{"libraries": 5}, {"libraries": [5]}, {"disable": 5}, {"disable": [None]}, {"config_file": 5}, {"config_file": b"x"}],
    ids=str,
)
def test_an_argument_of_the_wrong_type_is_raised_only_if_strict(instrument: Start, arguments: dict[str, object]) -> None:
    """Nothing but the status tells, unless strict: then it is a ConfigError that names the argument."""
    [name] = arguments
    assert name in instrument(strict=False, **arguments).status()["sage_obs"].why
    with pytest.raises(ConfigError, match=name):
        instrument(**arguments)


def test_none_is_the_default(instrument: Start) -> None:
    """`libraries` and `disable` at None are as if they had not been given."""
    first = instrument()
    assert instrument(libraries=None, disable=None, config_file=None) is first


def test_a_component_fails_alone(instrument: Start, tmp_path: Path) -> None:
    """Logs that cannot be written are off with the reason; everything else is on."""
    handle = instrument(log_output=str(tmp_path / "none" / "log"), strict=False)
    assert not handle.status()["logs"].on
    assert "No such file" in handle.status()["logs"].why
    assert handle.status()["metrics"].on
    with pytest.raises(SageObsError, match="No such file"):
        instrument("strictly", log_output=str(tmp_path / "none" / "log"))
    assert not logging.getLogger().handlers or "sage" not in type(logging.getLogger().handlers[0]).__module__


def test_settings_come_from_a_file_too(instrument: Start, tmp_path: Path) -> None:
    """`config_file` sets what arguments and environment leave open; an unknown key is an error with a suggestion."""
    file = tmp_path / "config.yaml"
    file.write_text("observability:\n  logging: {level: error}\n")
    instrument(config_file=file)
    assert logging.getLogger().level == logging.ERROR
    file.write_text("observability:\n  logging: {levle: error}\n")
    with pytest.raises(ConfigError, match="did you mean"):
        instrument(config_file=file)


def test_an_application_that_cannot_be_found_by_itself_is_pointed_out(instrument: Start) -> None:
    """`app` that is not routed has to be wrapped; strict makes it an error."""
    with pytest.raises(SageObsError, match="instrument_app"):
        instrument(app=answering(200))


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    """The lazy face has exactly the names it lists."""
    assert set(sage_obs.__all__) <= set(dir(sage_obs))
    for name in sage_obs.__all__:
        assert getattr(sage_obs, name) is not None
    with pytest.raises(AttributeError, match="instrumnt"):
        _ = sage_obs.instrumnt
