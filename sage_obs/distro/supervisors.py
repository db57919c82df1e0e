"""Processes that only start and watch others: the work, and so the telemetry, is in their children."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Final

_TAKES_A_VALUE: Final = frozenset({"-W", "-X", "--check-hash-based-pycs"})
_ALWAYS: Final = frozenset({"gunicorn", "granian"})
_WITH_WORKERS: Final = frozenset({"uvicorn", "fastapi"})
_TRACKER: Final = "multiprocessing.resource_tracker"
_FORKSERVER: Final = "multiprocessing.forkserver"


def program(argv: Sequence[str]) -> str:
    """What a Python process runs, by its whole command line: the name of a module or script; for `-c`, the code."""
    words = iter(argv[1:])
    for word in words:
        if word in {"-m", "-c"}:
            return next(words, "")
        if word.startswith(("-m", "-c")):
            return word[2:]
        if word in _TAKES_A_VALUE:
            next(words, "")
        elif not word.startswith("-"):
            return PurePath(word).name
    return ""


def works(argv: Sequence[str]) -> bool:
    """Whether anything worth measuring can happen in this process or in what it forks."""
    return _TRACKER not in program(argv)


def supervises(argv: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether the process with this command line leaves the work to its children."""
    name = program(argv)
    if name in _ALWAYS or _FORKSERVER in name:
        return True
    if name == "hypercorn":  # which starts a process for a single worker too
        return "0" not in {_value(argv, "--workers"), _value(argv, "-w")}
    if name in _WITH_WORKERS:
        return _watches_files(name, argv, environ) or _workers(argv, environ) > 1
    return _reloads_itself(name, argv, environ)


def _watches_files(name: str, argv: Sequence[str], environ: Mapping[str, str]) -> bool:
    if name == "fastapi":
        return ("dev" in argv and "--no-reload" not in argv) or "--reload" in argv
    return "--reload" in argv or environ.get("UVICORN_RELOAD", "").lower() in {"1", "true", "yes", "on"}


def _reloads_itself(name: str, argv: Sequence[str], environ: Mapping[str, str]) -> bool:
    """The reloaders of Werkzeug and Django start the same command line again, with a variable set."""
    if name == "flask":
        return "run" in argv and bool({"--debug", "--reload"} & set(argv)) and "WERKZEUG_RUN_MAIN" not in environ
    return name in {"manage.py", "django-admin"} and "runserver" in argv and "--noreload" not in argv and "RUN_MAIN" not in environ


def _workers(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    said = _value(argv, "--workers") or _value(argv, "-w") or environ.get("UVICORN_WORKERS", "") or environ.get("WEB_CONCURRENCY", "")
    return int(said) if said.isascii() and said.isdecimal() else 1


def _value(argv: Sequence[str], option: str) -> str:
    """The value of an option, as the next word or after `=`; "" where it is not given."""
    for index, word in enumerate(argv):
        if word == option:
            return argv[index + 1] if index + 1 < len(argv) else ""
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return ""
