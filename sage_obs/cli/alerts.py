"""`sage-obs alerts`."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sage_obs.errors import SageObsError
from sage_obs.slo.windows import PROFILES, Windows

if TYPE_CHECKING:
    from sage_obs.alerts.settings import AlertSettings
    from sage_obs.alerts.tools import ToolReport

_DEFAULT_OUT = Path("alerts")
_PROFILE = click.option(
    "--profile", type=click.Choice(list(PROFILES)), default="production", show_default=True, help="Windows of the rules."
)
_SETTINGS = click.option(
    "--settings",
    "settings_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Your objectives, thresholds, windows and receivers.  [default: ./sage-alerts.yaml, if there is one]",
)
_PROFILES = click.option("--profile", type=click.Choice(list(PROFILES)), help="Only the rules with these windows; all otherwise.")


@click.group("alerts")
def command() -> None:
    """Recording rules, rollback triggers and Alertmanager's configuration."""


@command.command("list")
@_PROFILE
@_SETTINGS
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(*, profile: str, settings_file: Path | None, as_json: bool) -> None:
    """List the alerts, what they wait for and what they say."""
    from sage_obs.alerts.catalogue import groups
    from sage_obs.alerts.links import Links

    settings = _settings(settings_file)
    for group in groups(settings.of(PROFILES[profile]), links=Links(), settings=settings):
        for rule in group.alerts:
            sentence = re.sub(r"\{\{ \$labels\.(\w+) \}\}", r"<\1>", rule.annotations["description"].partition(": {{ $value")[0])
            if as_json:
                click.echo(json.dumps({**rule.data(), "group": group.name, "sentence": sentence}, sort_keys=True))
            else:
                click.echo(f"{rule.alert:<28} {rule.labels['severity']}  after {rule.data()['for']:<4} {sentence}")


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
@click.option(
    "--format",
    "format_",
    type=click.Choice(["prometheus", "prometheusrule"]),
    default="prometheus",
    show_default=True,
    help="Rule files with Alertmanager's configuration and tests, or manifests for the Prometheus operator.",
)
@click.option("--namespace", default="", help="Of the manifests.")
@_SETTINGS
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
    format_: str,
    namespace: str,
    settings_file: Path | None,
) -> None:
    """Write the rules, Alertmanager's configuration and promtool's tests."""
    from sage_obs.alerts.render import Links, ResponderRoute, manifests, render
    from sage_obs.cli.rendered import check_or_export

    settings = _settings(settings_file)
    links = Links(**_given(runbooks=runbook_url, grafana=grafana_url))
    responder = ResponderRoute(**_given(url=responder_url, token_file=token_file))
    if format_ == "prometheusrule":
        files = manifests(PROFILES[profile], links=links, settings=settings, namespace=namespace)
    else:
        files = render(PROFILES[profile], links=links, responder=responder, settings=settings)
    check_or_export(out, files, check=check, force=force)


@command.command("lint")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_PROFILES
@_SETTINGS
@click.option("--strict", is_flag=True, help="With files: exit 1 for warnings too.")
@click.option("--json", "as_json", is_flag=True, help="With files: one JSON object a line for each finding.")
def lint_(*, files: tuple[Path, ...], profile: str | None, settings_file: Path | None, strict: bool, as_json: bool) -> int:
    """Check rules: promtool, amtool and this project's own rules about rules.

    Without FILES these are the rules that sage-obs ships. With FILES they are yours: rule files of Prometheus, or a PrometheusRule of its
    operator. Exit codes: 0 no errors, 1 errors (with --strict warnings too), 2 usage.
    """
    from sage_obs.cli.linting import lint_files

    if files:
        settings = _settings(settings_file)
        windows = settings.of(PROFILES[profile or "production"])
        return lint_files(files, windows, also=settings.metrics, strict=strict, as_json=as_json)
    if strict or as_json:
        raise click.UsageError("--strict and --json are about FILES.")
    _lint_own(profile, _settings(settings_file))
    return 0


def _lint_own(profile: str | None, settings: AlertSettings) -> None:
    from sage_obs.alerts import catalogue, lint, tools
    from sage_obs.alerts.links import Links
    from sage_obs.stack.binaries import find

    for windows in _chosen(profile):
        groups = catalogue.groups(settings.of(windows), links=Links(), settings=settings)
        findings = lint.lint(groups, also=settings.metrics)
        for finding in findings:
            click.echo(f"{windows.name}: {finding}")
        if findings:
            raise SageObsError(f"{len(findings)} findings in the {windows.name} rules.", hint="Each line above names the rule to change.")
        click.echo(f"{windows.name}: own rules: no findings")
        checks = (
            lambda folder: tools.check_rules(find("promtool"), folder),
            lambda folder: tools.check_config(find("amtool"), folder),
        )
        _report(windows, settings, checks)


@command.command("test")
@_PROFILES
@_SETTINGS
def test_(*, profile: str | None, settings_file: Path | None) -> None:
    """Run promtool's tests: each alert fires just after its threshold and is silent just before."""
    from sage_obs.alerts import tools
    from sage_obs.stack.binaries import find

    settings = _settings(settings_file)
    for windows in _chosen(profile):
        with _rendered(windows, settings) as folder:
            for report in tools.run_each_test(find("promtool"), folder):
                _say(windows, report)


def _settings(file: Path | None) -> AlertSettings:
    from sage_obs.alerts import settings
    from sage_obs.alerts.catalogue import KNOWN

    return settings.load(file, known=KNOWN)


def _given(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def _chosen(profile: str | None) -> tuple[Windows, ...]:
    return (PROFILES[profile],) if profile else tuple(PROFILES.values())


def _report(windows: Windows, settings: AlertSettings, checks: tuple[Callable[[Path], ToolReport], ...]) -> None:
    """Run tools over freshly rendered files and print what they say. Raises SageObsError for the first that fails."""
    with _rendered(windows, settings) as folder:
        for check in checks:
            _say(windows, check(folder))


def _say(windows: Windows, report: ToolReport) -> None:
    """Print what a tool says. Raises SageObsError where it failed."""
    click.echo(f"{windows.name}: {report.command}: {'passed' if report.passed else 'FAILED'}")
    if not report.passed:
        click.echo(report.output, err=True)
        raise SageObsError(f"`{report.command}` failed for the {windows.name} rules.", hint="What it says stands above.")


@contextmanager
def _rendered(windows: Windows, settings: AlertSettings) -> Iterator[Path]:
    from sage_obs.alerts import tools
    from sage_obs.alerts.render import Links, ResponderRoute, render

    with tempfile.TemporaryDirectory(prefix="sage-obs-alerts-") as folder:
        tools.write(Path(folder), render(windows, links=Links(), responder=ResponderRoute(), settings=settings))
        yield Path(folder)


@command.command("simulate")
@click.option("--script", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="An incident written down as YAML.")
@click.option("--prometheus", metavar="URL", help="The Prometheus that remembers the incident.")
@click.option("--from", "begin", metavar="TIME", help="When it began: 2026-11-30T08:00:00Z, Unix seconds, or now-2h.")
@click.option("--to", "end", metavar="TIME", help="When it was over.")
@click.option("--step", metavar="DURATION", help="Between two values that are read; the scrape interval of the windows otherwise.")
@click.option("--warmup", metavar="DURATION", help="Read before --from to fill windows; what the rules need, at most 6h, otherwise.")
@click.option("--job", "jobs", multiple=True, metavar="JOB", help="Only series of this job; may be repeated.")
@click.option(
    "--rules",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Rules of your own instead of ours; may be repeated.",
)
@click.option("--alert", "alerts", multiple=True, metavar="PATTERN", help="Only these alerts, such as 'SageRollback*'; may be repeated.")
@click.option("--expect", "expected", multiple=True, metavar="ALERT", help="Exit 1 unless this alert fires; may be repeated.")
@_PROFILE
@_SETTINGS
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each change.")
def simulate_(
    *,
    script: Path | None,
    prometheus: str | None,
    begin: str | None,
    end: str | None,
    step: str | None,
    warmup: str | None,
    jobs: tuple[str, ...],
    rules: tuple[Path, ...],
    alerts: tuple[str, ...],
    expected: tuple[str, ...],
    profile: str,
    settings_file: Path | None,
    as_json: bool,
) -> int:
    """Replay an incident and see when each alert would have become pending, fired and ended.

    The incident is a --script, or what a --prometheus remembers. Prometheus's own rule engine evaluates the rules. Exit codes: 0 replayed,
    whatever fired; 1 an alert of --expect did not fire, or a server or promtool could not be used; 2 usage, a script or rules with errors.
    """
    from sage_obs.cli.simulating import Asked, simulate

    settings = _settings(settings_file)
    return simulate(
        Asked(
            script=script,
            prometheus=prometheus,
            begin=begin,
            end=end,
            step=step,
            warmup=warmup,
            jobs=jobs,
            rules=rules,
            alerts=alerts,
            expected=expected,
            settings=settings,
            windows=settings.of(PROFILES[profile]),
            as_json=as_json,
        )
    )
