from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sage_obs.distro.autostart import disabled
from sage_obs.distro.launch import AUTOLOAD, launch, python_path
from sage_obs.errors import ConfigError, SageObsError, ShellCode


def _script(folder: Path, name: str, text: str, *, mode: int = 0o755) -> str:
    file = folder / name
    file.write_text(text)
    file.chmod(mode)
    return str(file)


def test_the_environment_of_the_program_is_the_callers_and_the_folder() -> None:
    """What is asked for is added, what was there stays, and the folder comes first, once."""
    made = launch([sys.executable, "-u", "app.py"], {"A": "1", "PYTHONPATH": "/x"}, {"SAGE_METRICS_PORT": "0"})
    assert (made.executable, made.argv) == (sys.executable, (sys.executable, "-u", "app.py"))
    assert made.environ == {"A": "1", "SAGE_METRICS_PORT": "0", "PYTHONPATH": f"{AUTOLOAD}{os.pathsep}/x"}
    assert python_path(python_path("/x")) == made.environ["PYTHONPATH"]
    assert {one.name for one in AUTOLOAD.glob("*.py")} == {"__init__.py", "sitecustomize.py"}


@pytest.mark.parametrize(
    "head",
    ["#!/usr/bin/env python3\n", "#!/venv/bin/python\n", "#!/bin/sh\n'''exec' \"/a long/venv/bin/python3.11\" \"$0\" \"$@\"\n' '''\n"],
    ids=["env", "venv", "long"],
)
def test_scripts_of_python_are_known_by_their_head(tmp_path: Path, head: str) -> None:
    """Console scripts run, however pip wrote their first line."""
    script = _script(tmp_path, "serve", head)
    assert launch([script], {}, {}).executable == script
    assert launch(["serve"], {"PATH": str(tmp_path)}, {}).executable == script


def test_what_starts_other_programs_is_let_through() -> None:
    """A shell or `env` may start Python, and what it starts sees the environment."""
    assert launch(["sh", "-c", "exec python app.py"], {"PATH": os.environ["PATH"]}, {}).argv[0] == "sh"


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["no-such-program"], ShellCode.NOT_FOUND, "no-such-program"),
        (["./no/such/program"], ShellCode.NOT_FOUND, "./no/such/program"),
        (["native"], ShellCode.CANNOT_RUN, "no Python program"),
        (["app.py"], ShellCode.CANNOT_RUN, "python app.py"),
        ([sys.executable, "-I", "app.py"], ShellCode.CANNOT_RUN, "-I"),
        ([sys.executable, "-bES", "app.py"], ShellCode.CANNOT_RUN, "-E"),
    ],
    ids=["missing", "missing file", "native", "not executable", "isolated", "deaf"],
)
def test_what_cannot_be_run_is_told_with_a_shells_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], code: ShellCode, said: str
) -> None:
    """127 for what is not there, 126 for what is and cannot be instrumented, and what to do about it."""
    monkeypatch.chdir(tmp_path)
    _script(tmp_path, "native", "\x7fELF")
    _script(tmp_path, "app.py", "", mode=0o644)
    with pytest.raises(SageObsError) as caught:
        launch(command, {"PATH": str(tmp_path)}, {})
    assert caught.value.exit_code == code
    assert said in str(caught.value)


def test_pythons_options_are_told_from_the_programs() -> None:
    """An -I after the script or the module is the program's."""
    assert launch([sys.executable, "-m", "app", "-I"], {}, {})
    assert launch([sys.executable, "-u", "app.py", "-E"], {}, {})


def test_a_setting_that_cannot_be_used_is_told_before_the_program_starts() -> None:
    """A slip in a variable is an error here, where somebody looks."""
    with pytest.raises(ConfigError, match="SAGE_LOG_LEVEL"):
        launch([sys.executable], {"SAGE_LOG_LEVEL": "loud"}, {})


@pytest.mark.parametrize(
    ("said", "expected"), [("", set()), ("httpx, redis", {"httpx"}), ("*", {"httpx", "starlette", "uvicorn"})], ids=["none", "one", "all"]
)
def test_opentelemetrys_list_of_disabled_instrumentations_counts(said: str, expected: set[str]) -> None:
    """Names in it that are ours are switched off, and the wildcard is all of them."""
    found = set(disabled({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": said}))
    assert expected <= found
    assert bool(found) is bool(expected)
