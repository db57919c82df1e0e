"""What the `export` commands share."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import click
from click.core import ParameterSource

from sage_obs.render import check as check_rendered
from sage_obs.render import drift, export


def check_or_export(out: Path, files: Mapping[str, str], *, check: bool, force: bool) -> None:
    """Compare the folder with the rendered files, or write them; data goes to stdout, talk to stderr."""
    if check and force:
        raise click.UsageError("--check writes nothing, so it cannot be combined with --force.")
    if check:
        check_rendered(out, files, again=_again())
        click.echo(f"{out}: {len(files)} files, as rendered now.", err=True)
        return
    written = export(out, files, force=force, again=_again())
    for name in written:
        click.echo(str(out / name))
    click.echo(f"{out}: {len(written)} written, {len(files) - len(written)} already there.", err=True)
    for name in drift(out, files).left_over:
        click.echo(f"{out / name} is no longer rendered; delete it.", err=True)


def _again() -> str:
    """The command line as typed, but writing and overwriting."""
    context = click.get_current_context()
    typed = [
        part
        for option in context.command.params
        if option.name
        and option.name not in {"check", "force"}
        and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
        for part in (option.opts[0], str(context.params[option.name]))
    ]
    return f"{context.command_path} {shlex.join([*typed, '--force'])}"
