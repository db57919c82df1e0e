"""`sage-obs runbook`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sage_obs.cli.running import approver, coloured, exit_code, guarded, person, printer
from sage_obs.conventions import RUNBOOK_INCIDENT, RUNBOOK_ROLLBACK, SERVICE
from sage_obs.errors import ConfigError
from sage_obs.slo.windows import PROFILES
from sage_obs.stack.state import DEFAULT_STATE, read_note

if TYPE_CHECKING:
    from sage_obs.cli.world import Asked
    from sage_obs.runbooks.model import Runbook
    from sage_obs.runbooks.progress import Start
    from sage_obs.runbooks.world import World

_STATE = click.option(
    "--state", type=click.Path(path_type=Path, file_okay=False), default=DEFAULT_STATE, show_default=True, help="Where all state lives."
)
_WHERE: Final = (
    click.option("--prometheus", metavar="URL", default="", help="Measure through this Prometheus.  [default: the running stack's]"),
    click.option("--target", "targets", metavar="URL", multiple=True, help="Scrape this service directly instead; can be repeated."),
    click.option("--window", type=click.FloatRange(min=0.1), help="Seconds between the two scrapes of a --target.  [default: 10]"),
    click.option("--profile", type=click.Choice(sorted(PROFILES)), help="Time windows.  [default: the running stack's]"),
    _STATE,
)
_RUN: Final = (
    click.option("--dry-run", is_flag=True, help="Measure, and show what would be done and which rail would refuse; change nothing."),
    click.option("--yes", is_flag=True, help="Approve what can be undone."),
    click.option("--non-interactive", is_flag=True, help="Never ask; without --yes the run waits for approval (exit code 4)."),
    click.option("--platform", type=click.Choice(["auto", "local"]), default="auto", show_default=True, help="Where the service runs."),
    click.option("--service", default=SERVICE, show_default=True, help="The service to look after."),
    click.option("--param", "params", metavar="NAME=VALUE", multiple=True, help="A parameter of the runbook, such as to=1.2.0."),
)
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


def _options(*options: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@click.group("runbook")
def command() -> None:
    """Executable runbooks: incident, rollback."""


@command.command(RUNBOOK_INCIDENT)
@_options(*_RUN, *_WHERE, _JSON)
def incident_(**given: Any) -> int:
    """Find out what is wrong and how bad it is; go back to the last good release if that one is the cause."""
    return _run(RUNBOOK_INCIDENT, **given)


@command.command(RUNBOOK_ROLLBACK)
@_options(*_RUN, *_WHERE, _JSON)
def rollback_(**given: Any) -> int:
    """Go back to the last release proven good, and verify that it ended the trouble."""
    return _run(RUNBOOK_ROLLBACK, **given)


def _run(
    name: str,
    *,
    dry_run: bool,
    yes: bool,
    non_interactive: bool,
    platform: str,
    service: str,
    params: tuple[str, ...],
    prometheus: str,
    targets: tuple[str, ...],
    window: float | None,
    profile: str | None,
    state: Path,
    as_json: bool,
) -> int:
    from sage_obs.cli.world import Asked, open_world, profile_of
    from sage_obs.runbooks import runs
    from sage_obs.runbooks.progress import Start

    parameters = {"service": service, "platform": platform, **_pairs(params)}
    asked = Asked(state, prometheus, targets, window, profile, parameters["platform"], parameters["service"])
    script = runs.script(name)
    start = Start(name, parameters, automatic=False, profile=profile_of(asked, read_note(state)), by=person())
    world = open_world(asked, approve=approver(yes=yes, ask=not non_interactive and not as_json))
    if dry_run:
        return _preview(script, start, world, as_json=as_json)
    return exit_code(guarded(lambda: runs.execute(script, start, world, watch=printer(as_json=as_json))))


def _preview(script: Any, start: Start, world: World, *, as_json: bool) -> int:
    from sage_obs.runbooks import report, runs

    progress = runs.preview(script, start, world, watch=printer(as_json=True) if as_json else lambda _: None)
    if not as_json:
        for line in report.plan(progress, source=world.signals.name):
            click.echo(coloured(line))
    return exit_code(progress)


def _pairs(params: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in params:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"`--param {text}` is not NAME=VALUE.", hint="For example --param to=1.2.0.")
        pairs[name] = value
    return pairs


@command.command("resume")
@click.argument("run")
@click.option("--yes", is_flag=True, help="Approve what can be undone.")
@click.option("--non-interactive", is_flag=True, help="Never ask.")
@_options(*_WHERE, _JSON)
def resume_(*, run: str, yes: bool, non_interactive: bool, as_json: bool, state: Path, profile: str | None, **where: Any) -> int:
    """Go on with a run that waits or was interrupted; RUN is its id, the beginning of it, or `latest`."""
    from sage_obs.cli.world import open_world
    from sage_obs.runbooks import runs

    folder = runs.find(state, run)
    asked = _asked_again(runs.started(folder), state=state, profile=profile, **where)
    world = open_world(asked, approve=approver(yes=yes, ask=not non_interactive and not as_json))
    return exit_code(guarded(lambda: runs.resume(folder, world, by=person(), watch=printer(as_json=as_json))))


def _asked_again(
    start: Start, *, state: Path, profile: str | None, prometheus: str, targets: tuple[str, ...], window: float | None
) -> Asked:
    from sage_obs.cli.world import Asked

    platform, service = start.parameters.get("platform", "auto"), start.parameters.get("service", SERVICE)
    return Asked(state, prometheus, targets, window, profile or start.profile, platform, service)


@command.command("status")
@click.argument("run", required=False)
@_STATE
@_JSON
def status_(*, run: str | None, state: Path, as_json: bool) -> None:
    """List the runs, or show the events of one; the journal's chain is checked."""
    from sage_obs.runbooks import journal, runs

    if run is None:
        for folder in runs.folders(state):
            _show_run(folder, as_json=as_json)
        return
    folder = runs.find(state, run)
    events = journal.trusted(folder)
    show = printer(as_json=as_json)
    with journal.interpreting(str(folder / journal.FILE)):
        for event in events:
            show(event)


def _show_run(folder: Path, *, as_json: bool) -> None:
    from sage_obs.errors import JournalError
    from sage_obs.runbooks import journal
    from sage_obs.runbooks.progress import fold

    try:
        progress = fold(journal.trusted(folder))
        outcome = "waiting_for_approval" if progress.waiting else progress.outcome.value if progress.outcome else "unfinished"
    except JournalError as exc:
        outcome = f"unreadable: {exc.message}"
    click.echo(json.dumps({"run": folder.name, "outcome": outcome}) if as_json else f"{folder.name}  {outcome}")


@command.command("postmortem")
@click.argument("run", default="latest")
@_STATE
@_JSON
def postmortem_(*, run: str, state: Path, as_json: bool) -> None:
    """Draft a run's post-mortem from its journal and print it."""
    from sage_obs.runbooks import journal, runs
    from sage_obs.runbooks.postmortem import draft
    from sage_obs.runbooks.postmortem_text import as_json as to_json
    from sage_obs.runbooks.postmortem_text import as_markdown

    folder = runs.find(state, run)
    events = journal.trusted(folder)
    with journal.interpreting(str(folder / journal.FILE)):
        found = draft(events)
        text = to_json(found) if as_json else as_markdown(found)
    click.echo(text, nl=False)


@command.command("list")
@_JSON
def list_(*, as_json: bool) -> None:
    """List the runbooks."""
    from sage_obs.runbooks.loader import catalogue

    for name, runbook in catalogue().items():
        click.echo(json.dumps({"name": name, "summary": runbook.summary}) if as_json else f"{name:<10} {runbook.summary}")


@command.command("show")
@click.argument("name")
@click.option("--md", is_flag=True, help="The Markdown page instead of the YAML.")
def show_(*, name: str, md: bool) -> None:
    """Print a runbook."""
    from sage_obs.runbooks import loader, page

    text = loader.source(name)
    click.echo(page.render(loader.catalogue()[name]) if md else text, nl=False)


@command.command("lint")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
def lint_(*, files: tuple[Path, ...]) -> None:
    """Check runbooks: those named, or the catalogue. The first mistake is named with file, line and key."""
    for name, runbook in _to_lint(files).items():
        click.echo(f"{name}: {len(runbook.steps) + len(runbook.closing)} steps, no findings")


def _to_lint(files: tuple[Path, ...]) -> dict[str, Runbook]:
    from sage_obs.runbooks import loader

    if not files:
        return loader.catalogue()
    known = (*loader.names(), *(path.stem for path in files))
    return {str(path): loader.load(loader.read(path), source=str(path), callable_names=known) for path in files}


@command.command("export")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("runbooks"), show_default=True, help="Where to.")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if the folder is not what would be rendered now.")
@click.option("--force", is_flag=True, help="Overwrite files with other content.")
def export_(*, out: Path, check: bool, force: bool) -> None:
    """Write the pages that alerts link to."""
    from sage_obs.cli.rendered import check_or_export
    from sage_obs.runbooks import loader, page

    check_or_export(out, page.pages(loader.catalogue()), check=check, force=force)
