"""`sage-obs drill`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sage_obs.cli.output import print_table
from sage_obs.cli.stopping import stopped_by_signals
from sage_obs.errors import ConfigError, ExitCode
from sage_obs.stack.state import DEFAULT_STATE

if TYPE_CHECKING:
    from sage_obs.stack.drill import Result


@click.command("drill")
@click.argument("name", metavar="NAME|list")
@click.option(
    "--state", type=click.Path(path_type=Path, file_okay=False), default=DEFAULT_STATE, show_default=True, help="Where all state lives."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def command(*, name: str, state: Path, as_json: bool) -> int:
    """Break a stack of its own on purpose, and score detection, mitigation and verification.

    Exits 0 only if the bad release is gone, the error rate is back, the journal is intact and the post-mortem names the right
    release, all in under a minute. `sage-obs drill list` shows the drills.
    """
    from sage_obs.stack.drill import conduct, options_for
    from sage_obs.stack.drills import DRILLS

    if name == "list":
        if as_json:
            for drill in DRILLS.values():
                click.echo(json.dumps({"drill": drill.name, "title": drill.title}))
            return ExitCode.OK
        print_table(("drill", "what it does"), [(drill.name, drill.title) for drill in DRILLS.values()])
        return ExitCode.OK
    if name not in DRILLS:
        raise ConfigError(f"There is no drill `{name}`.", hint=f"There are: {', '.join(DRILLS)}.")
    folder = state / "drills" / f"{name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    with stopped_by_signals(ExitCode.INTERRUPTED) as request:
        result = conduct(DRILLS[name], options_for(folder, tools=state), say=partial(click.echo, err=True), check=request.check)
    if as_json:
        click.echo(json.dumps(asdict(result)))
    else:
        _show(result)
    return ExitCode.OK if result.passed else ExitCode.FAILED


def _show(result: Result) -> None:
    click.echo()
    for mark in result.timeline:
        click.echo(f"{mark.seconds:+7.1f} s  {mark.what}")
    click.echo()
    for check in result.checks:
        verdict = click.style("pass", fg="green") if check.passed else click.style("FAIL", fg="red", bold=True)
        click.echo(f"{verdict}  {check.name}: {check.seen}")
    click.echo(f"\nRun:         {result.run}\nPost-mortem: {result.postmortem}")
