from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sage_obs.distro import environment_variables
from sage_obs.distro.selection import select
from tests.support.distributions import distribution

OURS = {"OTEL_PYTHON_DISTRO": "sage_obs", "OTEL_PYTHON_CONFIGURATOR": "sage_obs"}


def test_ours_is_selected_beside_the_stock_one_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is selected already stays, by one variable too; a third distribution may be meant."""
    environ: dict[str, str] = {}
    select(environ)
    assert environ == OURS
    for chosen in ({"OTEL_PYTHON_DISTRO": "distro"}, {"OTEL_PYTHON_CONFIGURATOR": "configurator"}):
        kept = dict(chosen)
        select(kept)
        assert kept == chosen
    distribution(tmp_path, "their-distro", {"opentelemetry_distro": "theirs = theirs:Distro"})
    monkeypatch.syspath_prepend(str(tmp_path))
    environ = {}
    select(environ)
    assert environ == {}


@pytest.mark.parametrize(("program", "selected"), [("/venv/bin/opentelemetry-instrument", True), ("/venv/bin/app", False)])
def test_only_the_command_finds_ours_selected(monkeypatch: pytest.MonkeyPatch, program: str, selected: bool) -> None:  # noqa: FBT001 - two cases
    """Asking the module for its names does nothing in any other program, and none of them becomes an option of the command."""
    for variable in OURS:
        monkeypatch.setenv(variable, "")
    monkeypatch.setattr(sys, "argv", [program])
    assert not [name for name in dir(environment_variables) if name.startswith("OTEL_")]
    assert {variable: os.environ[variable] for variable in OURS} == (OURS if selected else dict.fromkeys(OURS, ""))
    assert "SAGE_METRICS_PORT" in environment_variables.SAGE_VARIABLES
