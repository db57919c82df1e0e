"""`sage-obs dashboards`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from sage_obs.dashboards.sources import DEFAULT_RUNBOOKS
from sage_obs.errors import SageObsError
from sage_obs.stack.state import DEFAULT_STATE

_RUNBOOKS = click.option(
    "--runbook-url", "runbooks", metavar="BASE", default=DEFAULT_RUNBOOKS, show_default=True,
    help="Address of the folder with the runbooks' pages, for links.",
)  # fmt: skip


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
@click.option(
    "--format", "form", type=click.Choice(["files", "configmap"]), default="files", show_default=True,
    help="Files for provisioning, or a Kubernetes ConfigMap for each board.",
)  # fmt: skip
@click.option("--namespace", default="", help="The namespace of ConfigMaps.  [default: that of kubectl]")
@_RUNBOOKS
def export_(*, out: Path, check: bool, force: bool, form: str, namespace: str, runbooks: str) -> None:
    """Write the boards as JSON for Grafana's file provisioning, or as ConfigMaps."""
    from sage_obs.cli.rendered import check_or_export
    from sage_obs.dashboards.render import render, render_configmaps

    if namespace and form != "configmap":
        raise click.UsageError("--namespace is for --format configmap.")
    files = render(runbooks=runbooks) if form == "files" else render_configmaps(runbooks=runbooks, namespace=namespace)
    check_or_export(out, files, check=check, force=force)


@command.command("push")
@click.option("--url", required=True, envvar="SAGE_GRAFANA_URL", show_envvar=True, help="Grafana's address.")
@click.option("--token", default="", help="A service account's token; better: SAGE_GRAFANA_TOKEN, or a file.")
@click.option("--token-file", type=click.Path(path_type=Path), help="A file with it; or named in SAGE_GRAFANA_TOKEN_FILE.")
@click.option("--folder", default="Sage", show_default=True, help="The folder that new boards go into.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_RUNBOOKS
@click.option("--json", "as_json", is_flag=True, help="One JSON object a board.")
def push_(*, url: str, token: str, token_file: Path | None, folder: str, dry_run: bool, yes: bool, runbooks: str, as_json: bool) -> int:
    """Save the boards in a Grafana by its HTTP API.

    Shows first what differs and asks; without a terminal and --yes it ends with exit code 4. A board that is there and not ours is
    never overwritten (exit code 3), nor one that somebody saved meanwhile.
    """
    from sage_obs.cli.pushing import Asked, push

    return push(Asked(url, token, token_file, folder, dry_run=dry_run, yes=yes, runbooks=runbooks, as_json=as_json))


@command.command("preview")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--prometheus", metavar="URL", default="", help="The Prometheus to ask.  [default: the running stack's]")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port of the page on 127.0.0.1.  [default: any free one]")
@click.option(
    "--profiles", metavar="URL|FILE", default="",
    help="What flame graphs are of: a service that serves profiles (SAGE_PROFILING_TOKEN has its token), or a file.",
)  # fmt: skip
@click.option("--open", "opens", is_flag=True, help="Open it in a browser.")
@click.option(
    "--state", type=click.Path(path_type=Path, file_okay=False), default=DEFAULT_STATE, show_default=True, help="Where a stack runs."
)
@_RUNBOOKS
def preview_(*, files: tuple[Path, ...], prometheus: str, port: int, profiles: str, opens: bool, state: Path, runbooks: str) -> None:
    """Draw dashboards without Grafana: a page on this machine that asks Prometheus.

    FILES are JSON files or folders of them; without any, the boards that ship are shown. Nothing is loaded from anywhere else. Log lines
    are not shown, for they are Loki's.
    """
    from sage_obs.cli.previewing import preview

    preview(files, prometheus=prometheus, port=port, profiles=profiles, opens=opens, state=state, runbooks=runbooks)


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
