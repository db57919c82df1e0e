"""What it takes to run a program so that each Python in it starts the layer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sage_obs.errors import ProgramNotFoundError, ProgramUnusableError
from sage_obs.settings import Settings

AUTOLOAD: Final = Path(__file__).parent / "autoload"
_LAUNCHERS: Final = frozenset(
    {
        *("ash", "bash", "dash", "sh", "zsh"),
        *(
            "chrt",
            "dumb-init",
            "env",
            "gosu",
            "nice",
            "nohup",
            "numactl",
            "setsid",
            "stdbuf",
            "su-exec",
            "taskset",
            "time",
            "timeout",
            "tini",
        ),
        *("make", "uv", "uvx"),
    }
)
"""Programs that are no Python and are used to start one; what they start sees the same environment."""
_HEAD_BYTES: Final = 512
_PYTHON: Final = (b"python", b"pypy")
_DEAF: Final = {"I": "is isolated and reads no PYTHONPATH", "E": "reads no PYTHONPATH", "S": "runs no sitecustomize"}
"""Options of Python that keep the layer out, and how."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What to hand to exec."""

    executable: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]


def launch(command: Sequence[str], environ: Mapping[str, str], variables: Mapping[str, str]) -> Launch:
    """The command with the layer in its environment; `variables` are added to it.

    Raises ConfigError for settings that cannot be used, ProgramNotFoundError, and ProgramUnusableError for what is not Python.
    """
    merged = {**environ, **variables}
    Settings.load(environ=merged)
    executable = _found(command[0], merged.get("PATH", os.defpath))
    _check(executable, command)
    merged["PYTHONPATH"] = python_path(merged.get("PYTHONPATH", ""))
    return Launch(executable, tuple(command), merged)


def python_path(before: str) -> str:
    """PYTHONPATH with our folder first, once."""
    rest = [entry for entry in before.split(os.pathsep) if entry and entry != str(AUTOLOAD)]
    return os.pathsep.join((str(AUTOLOAD), *rest))


def _found(name: str, path: str) -> str:
    if (found := shutil.which(name, path=path)) is not None:
        return found
    file = Path(name)
    if file.is_file() and (name.endswith(".py") or os.sep in name):
        raise ProgramUnusableError(f"{name} is not executable.", hint=f"Run it with Python: sage-obs run -- python {name}")
    where = "" if os.sep in name else " on PATH"
    raise ProgramNotFoundError(f"There is no program `{name}`{where}.", hint="For example: sage-obs run -- python app.py")


def _check(executable: str, command: Sequence[str]) -> None:
    name = Path(executable).name
    if name in _LAUNCHERS:
        return
    if not _is_python(Path(executable)):
        raise ProgramUnusableError(
            f"`{command[0]}` is no Python program: there is nothing to instrument.", hint="Run it without sage-obs run."
        )
    if name.startswith(("python", "pypy")) and (option := _deaf_option(command[1:])):
        raise ProgramUnusableError(
            f"Python with -{option} {_DEAF[option]}, so the layer cannot start in it.",
            hint=f"Leave out -{option}, or call sage_obs.instrument() in the program.",
        )


def _is_python(file: Path) -> bool:
    """An interpreter by its name, a script by its first lines; pip writes long interpreters' names on the second one."""
    if file.name.startswith(("python", "pypy")):
        return True
    try:
        with file.open("rb") as opened:
            head = opened.read(_HEAD_BYTES)
    except OSError:  # executable and not readable: exec will tell
        return True
    return head.startswith(b"#!") and any(word in line for line in head.split(b"\n")[:2] for word in _PYTHON)


def _deaf_option(arguments: Sequence[str]) -> str:
    """The first of Python's own options that keeps the layer out, "" for none."""
    for word in arguments:
        if not word.startswith("-") or word.startswith(("--", "-c", "-m", "-X", "-W")) or word == "-":
            return ""
        if found := next((letter for letter in word[1:] if letter in _DEAF), ""):
            return found
    return ""
