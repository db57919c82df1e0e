"""`sage-obs alerts`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sage_obs.errors import SageObsError
from sage_obs.slo.windows import PROFILES, Windows

if TYPE_CHECKING:
    from sage_obs.alerts.tools import ToolReport

_DEFAULT_OUT = Path("alerts")
_PROFILE = click.option(
    "--profile", type=click.Choice(list(PROFILES)), default="production", show_default=True, help="Windows of the rules."
)
_PROFILES = click.option("--profile", type=click.Choice(list(PROFILES)), help="Only the rules with these windows; all otherwise.")


@click.group("alerts")
def command() -> None:
    """Recording rules, rollback triggers and Alertmanager's configuration."""


@command.command("list")
@_PROFILE
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(*, profile: str, as_json: bool) -> None:
    """List the alerts, what they wait for and what they say."""
    from sage_obs.alerts.catalogue import Links, groups
    from sage_obs.slo.triggers import TRIGGERS

    sentences = {trigger.alert: trigger.sentence for trigger in TRIGGERS}
    for rule in (rule for group in groups(PROFILES[profile], links=Links()) for rule in group.alerts):
        if as_json:
            click.echo(json.dumps({**rule.data(), "sentence": sentences[rule.alert]}, sort_keys=True))
        else:
            click.echo(f"{rule.alert:<28} {rule.labels['severity']}  after {rule.data()['for']:<4} {sentences[rule.alert]}")


@command.command("export")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=_DEFAULT_OUT, show_default=True, help="Folder to write to."
)
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if the folder is not what would be rendered now.")
@click.option("--force", is_flag=True, help="Overwrite files with other content.")
@_PROFILE
@click.option("--runbook-url", metavar="BASE", help="Address of the folder with the runbooks' pages.")
@click.option("--grafana-url", metavar="URL", help="Address of Grafana, for the links to boards.")
@click.option("--responder-url", metavar="URL", help="Where the responder takes Alertmanager's webhook.")
@click.option("--token-file", metavar="PATH", help="File with the responder's bearer token, as Alertmanager sees it.")
def export_(
    *,
    out: Path,
    check: bool,
    force: bool,
    profile: str,
    runbook_url: str | None,
    grafana_url: str | None,
    responder_url: str | None,
    token_file: str | None,
) -> None:
    """Write the rules, Alertmanager's configuration and promtool's tests."""
    from sage_obs.alerts.catalogue import Links
    from sage_obs.alerts.render import render
    from sage_obs.alerts.routing import ResponderRoute
    from sage_obs.cli.rendered import check_or_export

    links = Links(**_given(runbooks=runbook_url, grafana=grafana_url))
    responder = ResponderRoute(**_given(url=responder_url, token_file=token_file))
    files = render(PROFILES[profile], links=links, responder=responder)
    check_or_export(out, files, check=check, force=force)


@command.command("lint")
@_PROFILES
def lint_(*, profile: str | None) -> None:
    """Check the rules: promtool, amtool and this project's own rules about rules."""
    from sage_obs.alerts import catalogue, lint, tools
    from sage_obs.stack.binaries import find

    for windows in _chosen(profile):
        findings = lint.lint(catalogue.groups(windows, links=catalogue.Links()))
        for finding in findings:
            click.echo(f"{windows.name}: {finding}")
        if findings:
            raise SageObsError(f"{len(findings)} findings in the {windows.name} rules.", hint="Each line above names the rule to change.")
        click.echo(f"{windows.name}: own rules: no findings")
        _report(
            windows, (lambda folder: tools.check_rules(find("promtool"), folder), lambda folder: tools.check_config(find("amtool"), folder))
        )


@command.command("test")
@_PROFILES
def test_(*, profile: str | None) -> None:
    """Run promtool's tests: each alert fires just after its threshold and is silent just before."""
    from sage_obs.alerts import tools
    from sage_obs.stack.binaries import find

    for windows in _chosen(profile):
        _report(windows, (lambda folder: tools.run_tests(find("promtool"), folder),))


def _given(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def _chosen(profile: str | None) -> tuple[Windows, ...]:
    return (PROFILES[profile],) if profile else tuple(PROFILES.values())


def _report(windows: Windows, checks: tuple[Callable[[Path], ToolReport], ...]) -> None:
    """Run tools over freshly rendered files and print what they say. Raises SageObsError for the first that fails."""
    with _rendered(windows) as folder:
        for check in checks:
            report = check(folder)
            click.echo(f"{windows.name}: {report.command}: {'passed' if report.passed else 'FAILED'}")
            if not report.passed:
                click.echo(report.output, err=True)
                raise SageObsError(f"`{report.command}` failed for the {windows.name} rules.", hint="What it says stands above.")


@contextmanager
def _rendered(windows: Windows) -> Iterator[Path]:
    from sage_obs.alerts import tools
    from sage_obs.alerts.catalogue import Links
    from sage_obs.alerts.render import render
    from sage_obs.alerts.routing import ResponderRoute

    with tempfile.TemporaryDirectory(prefix="sage-obs-alerts-") as folder:
        tools.write(Path(folder), render(windows, links=Links(), responder=ResponderRoute()))
        yield Path(folder)
