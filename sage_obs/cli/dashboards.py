"""`sage-obs dashboards`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from sage_obs.errors import SageObsError


@click.group("dashboards")
def command() -> None:
    """Grafana dashboards as code."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(*, as_json: bool) -> None:
    """List the boards."""
    from sage_obs.dashboards.render import boards

    for board in boards():
        panels = sum(panel["type"] != "row" for panel in board["panels"])
        if as_json:
            click.echo(json.dumps({"uid": board["uid"], "title": board["title"], "panels": panels}, sort_keys=True))
        else:
            click.echo(f"{board['uid']:<16} {board['title']:<16} {panels} panels")


@command.command("export")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("dashboards"), show_default=True, help="Folder to write to."
)
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if the folder is not what would be rendered now.")
@click.option("--force", is_flag=True, help="Overwrite files with other content.")
def export_(*, out: Path, check: bool, force: bool) -> None:
    """Write the boards as JSON for Grafana's file provisioning."""
    from sage_obs.cli.rendered import check_or_export
    from sage_obs.dashboards.render import render

    check_or_export(out, render(), check=check, force=force)


@command.command("lint")
def lint_() -> None:
    """Check the boards against this project's rules about boards."""
    from sage_obs.dashboards.lint import lint
    from sage_obs.dashboards.render import boards

    every = boards()
    findings = [finding for board in every for finding in lint(board)]
    for finding in findings:
        click.echo(str(finding))
    if findings:
        raise SageObsError(f"{len(findings)} findings in the boards.", hint="Each line above names the panel to change.")
    click.echo(f"{len(every)} boards: no findings")
