"""Every profile of a process at once, as files and as pages: what is wanted before anything is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sage_obs.errors import ConfigError, SageObsError
from sage_obs.profiling import fetch
from sage_obs.profiling.formats import SUFFIXES, written
from sage_obs.profiling.profile import Profile

_SAMPLED: Final = ("cpu", "wall")
_MEANWHILE: Final = (*_SAMPLED, "block", "mutex")
KINDS: Final = ("tasks", *_MEANWHILE, "heap")
FORMS: Final = ("pprof", "flamegraph")
Take = Callable[[str], Profile]


@dataclass(frozen=True, slots=True)
class Captured:
    """A kind of profile with the files written of it, none where nothing was to be seen, or with the `error` why it could not be had."""

    kind: str
    files: tuple[Path, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """Where a process serves its profiles, with the token, and its number; one of them may be missing: "" and None."""

    url: str
    pid: int | None
    token: str = field(default="", repr=False)


def capture(subject: Subject, folder: Path, *, seconds: int) -> tuple[Captured, ...]:
    """Write the profiles into `folder`, processor and elapsed time over `seconds`.

    The process is asked; one that does not answer within `seconds` is looked at from outside where its number is known, which shows no
    memory, no loops and no locks. Raises ConfigError where there is neither address nor number, OSError for a folder that cannot be
    written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not subject.url:
        return _outside(subject, folder, seconds)
    take = _asked(subject, seconds)
    first = _one("tasks", take, folder)
    if first.error:
        return (first,) if subject.pid is None else _outside(subject, folder, seconds)
    meanwhile = _together(_MEANWHILE, take, folder)
    return (first, *meanwhile, _one("heap", take, folder))  # whose taking would be seen in the others


def paths(folder: Path) -> Iterator[Path]:
    """Every file that `capture` may write."""
    return (_path(folder, kind, form) for kind in KINDS for form in FORMS)


def _asked(subject: Subject, seconds: int) -> Take:
    def take(kind: str) -> Profile:
        length = seconds if kind in _SAMPLED else None
        patience = 2.0 * seconds if kind in _SAMPLED else float(seconds)
        return fetch.from_url(subject.url, kind, seconds=length, token=subject.token, patience=patience)

    return take


def _outside(subject: Subject, folder: Path, seconds: int) -> tuple[Captured, ...]:
    pid = subject.pid
    if pid is None:
        raise ConfigError("There is nothing to take profiles of.", hint="Give --url, --pid or both.")
    return _together(("tasks", *_SAMPLED), lambda kind: fetch.from_process(pid, kind, seconds=seconds, stop=False), folder)


def _together(kinds: tuple[str, ...], take: Take, folder: Path) -> tuple[Captured, ...]:
    with ThreadPoolExecutor(len(kinds)) as pool:
        return tuple(pool.map(lambda kind: _one(kind, take, folder), kinds))


def _one(kind: str, take: Take, folder: Path) -> Captured:
    try:
        profile = take(kind)
    except SageObsError as exc:
        return Captured(kind, error=str(exc))
    if not profile.samples:
        return Captured(kind)
    files = tuple(_path(folder, kind, form) for form in FORMS)
    for file, form in zip(files, FORMS, strict=True):
        file.write_bytes(written(profile, form, title=kind))
    return Captured(kind, files)


def _path(folder: Path, kind: str, form: str) -> Path:
    return folder / f"{kind}{SUFFIXES[form]}"
