"""`sage-obs doctor`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sage_obs.errors import ExitCode

if TYPE_CHECKING:
    from sage_obs.doctor.findings import Finding


@click.command("doctor", context_settings={"allow_interspersed_args": False})
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.argument("program", nargs=-1, type=click.UNPROCESSED, metavar="[CMD [ARG]...]")
@click.pass_context
def command(ctx: click.Context, *, as_json: bool, program: tuple[str, ...]) -> None:
    """Find what keeps telemetry from working here, and say what to do about it.

    Looks at the environment, the installed packages, the metrics port and the OTLP endpoint. With a command, such as
    `sage-obs doctor -- python app.py`, also at the order of things in the program, which is read and not run.
    Exit code 0 without findings, 1 with.
    """
    from sage_obs.doctor.examine import examine
    from sage_obs.doctor.findings import World

    findings = examine(World(environ=os.environ, command=program, folder=Path.cwd()))
    for finding in findings:
        click.echo(json.dumps(asdict(finding), sort_keys=True) if as_json else _text(finding))
    if not findings and not as_json:
        click.echo("Nothing found.")
    ctx.exit(ExitCode.FAILED if findings else ExitCode.OK)


def _text(finding: Finding) -> str:
    return f"{click.style(f'{finding.check:<14}', bold=True)} {finding.what}\n{'':<14} {finding.remedy}"
