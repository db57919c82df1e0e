"""What `sage-obs alerts lint` says of files of somebody else's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from sage_obs.errors import ExitCode, UnavailableError
from sage_obs.slo.windows import Windows


def lint_files(paths: Sequence[Path], windows: Windows, *, also: Iterable[str], strict: bool, as_json: bool) -> ExitCode:
    """Print every finding; FAILED where one is an error, or where there is any and `strict`. `also` are metrics beside our own."""
    from sage_obs.alerts import foreign

    findings = foreign.lint_files(paths, interval=windows.evaluation, also=also, promtool=_promtool())
    for finding in findings:
        if as_json:
            click.echo(json.dumps(finding.data(), sort_keys=True))
        else:
            click.secho(str(finding), fg="red" if finding.level is foreign.Level.ERROR else "yellow")
    errors = sum(finding.level is foreign.Level.ERROR for finding in findings)
    click.echo(f"{len(paths)} files: {errors} errors, {len(findings) - errors} warnings", err=True)
    return ExitCode.FAILED if errors or (strict and findings) else ExitCode.OK


def _promtool() -> Path | None:
    from sage_obs.stack.binaries import find

    try:
        return find("promtool", say=lambda text: click.echo(text, err=True))
    except UnavailableError as exc:
        click.echo(f"Without promtool: {exc.message}", err=True)
        return None
