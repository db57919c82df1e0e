"""`sage-obs dashboards`."""

from __future__ import annotations

import json
from dataclasses import asdict
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
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--exclusions", type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Rules that do not hold and why, as dashboard-linter's `.lint`; without it, the `.lint` beside each file.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object a finding.")
def lint_(*, files: tuple[Path, ...], exclusions: Path | None, as_json: bool) -> None:
    """Check dashboards: FILES, JSON files or folders of them, or, without any, the boards that ship.

    The rules are those of Grafana's dashboard-linter and some of ours. Exits 1 if there are findings.
    """
    from sage_obs.cli.boards import lint_files, lint_own

    count, findings = lint_files(files, exclusions) if files else lint_own()
    for finding in findings:
        click.echo(json.dumps(asdict(finding)) if as_json else str(finding))
    if findings:
        raise SageObsError(f"{len(findings)} findings in the boards.", hint="Each line above names the board, the panel and the rule.")
    click.echo(f"{count} boards: no findings", err=as_json)
