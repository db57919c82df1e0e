"""The environment: variables nobody reads, values nobody can use, and an output nobody can write to."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from sage_obs.doctor.findings import Finding, World, entry_points, options
from sage_obs.runbooks.rails import KILL_SWITCH
from sage_obs.settings import Option

_PREFIX: Final = "SAGE_"
_VARIABLES_GROUP: Final = "sage_obs_variables"
"""Entry points that are tuples of further variables' names."""


def known() -> frozenset[str]:
    """Every variable of the prefix that something reads."""
    named = {name for option in options().values() for name in option.env}
    secret = {f"{name}_FILE" for option in options().values() if option.secret for name in option.env}
    further = {name for entry in entry_points(_VARIABLES_GROUP) for name in entry.load()}
    return frozenset({*named, *secret, *further, KILL_SWITCH})


def unknown(world: World) -> Iterator[Finding]:
    """A name with our prefix that nothing reads. Its value is not shown: it may be anything."""
    names = known()
    for name in sorted(world.environ):
        if name.startswith(_PREFIX) and name not in names:
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
            remedy = f"Did you mean {close[0]}?" if close else "Remove it, or correct its name."
            yield Finding("variable", f"{name} is set, and nothing reads it.", remedy)


def unusable(world: World) -> Iterator[Finding]:
    """A value that its setting cannot take, or a secret's file that cannot be read. The value is not shown: it may hold a secret."""
    for option in options().values():
        found = next((name for name in option.env if world.environ.get(name) or (option.secret and world.environ.get(f"{name}_FILE"))), "")
        if found and (why := _unusable(option, found, world.environ)):
            yield Finding("value", f"{found} cannot be used: {why}.", f"It sets: {option.help}.")


def _unusable(option: Option, name: str, environ: Mapping[str, str]) -> str:
    try:
        if option.secret and (path := environ.get(f"{name}_FILE")):
            Path(path).read_bytes()
        else:
            option.parse(environ[name])
    except OSError as exc:
        return f"the file that {name}_FILE names cannot be read ({exc.strerror})"
    except ValueError as exc:
        return str(exc)
    return ""


def log_output(world: World) -> Iterator[Finding]:
    """A log file that cannot be opened."""
    setting = world.setting("log_output")
    output = Path(setting.value)
    if not world.setting("logs").value or setting.value in {"stdout", "stderr"}:
        return
    path = world.folder / output
    why = _unwritable(path)
    if why:
        yield Finding(
            "log-output", f"Log lines cannot be written to {output}: {why}.", "Set SAGE_LOG_OUTPUT to stdout, stderr or a file's path."
        )


def _unwritable(path: Path) -> str:
    if path.is_dir():
        return "it is a folder"
    if path.exists():
        return "" if os.access(path, os.W_OK) else "no permission"
    if not path.parent.is_dir():
        return "its folder does not exist"
    return "" if os.access(path.parent, os.W_OK | os.X_OK) else "no permission for its folder"
