"""`sage-obs slo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sage_obs.slo.objectives import Objective

_SETTINGS = click.option(
    "--settings",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The file with your objectives.  [default: ./sage-alerts.yaml, if there is one]",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


@click.group("slo")
def command() -> None:
    """Objectives: those of the guide, and yours."""


@command.command("list")
@_SETTINGS
@_JSON
def list_(*, file: Path | None, as_json: bool) -> None:
    """List the objectives with what they promise."""
    for one in _objectives(file):
        if as_json:
            click.echo(json.dumps(_facts(one), sort_keys=True))
        else:
            click.echo(f"{one.name:<24} {one.target:<8.6g} {one.sentence}")


@command.command("show")
@click.argument("name")
@_SETTINGS
@_JSON
def show(*, name: str, file: Path | None, as_json: bool) -> None:
    """Show an objective: what is counted, and the budget in minutes a month."""
    from sage_obs.errors import ConfigError

    found = {one.name: one for one in _objectives(file)}
    if name not in found:
        raise ConfigError(f"There is no objective {name}.", hint=f"There are {', '.join(found)}.")
    facts = _facts(found[name])
    if as_json:
        click.echo(json.dumps(facts, sort_keys=True))
        return
    for key, value in facts.items():
        click.echo(f"{key:<10} {value}")


@command.command("add")
@click.argument("name")
@click.option("--target", type=float, required=True, help="The share of events that must be good, such as 0.995.")
@click.option("--counter", metavar="METRIC", help="A counter of events; --bad says which are bad.")
@click.option("--histogram", metavar="METRIC", help="A histogram of seconds; --under says what is fast enough.")
@click.option("--bad", multiple=True, metavar="LABEL=VALUE[,VALUE]", help="Labels of bad events.")
@click.option("--ignore", multiple=True, metavar="LABEL=VALUE[,VALUE]", help="Labels of events that do not count.")
@click.option("--where", multiple=True, metavar="LABEL=VALUE[,VALUE]", help="Labels of the events it is about.")
@click.option("--under", type=float, help="Seconds; a bound of the histogram.")
@click.option("--sentence", default="", help="What is bad, in words.")
@_SETTINGS
def add(*, name: str, file: Path | None, **said: Any) -> None:
    """Add an objective of yours to the file; its rules, its place on the board and its tests follow from there."""
    from sage_obs.alerts import settings
    from sage_obs.alerts.catalogue import KNOWN

    path = file or settings.DEFAULT_FILE
    document = settings.read(path) if path.exists() else {}
    document = {} if document is None else document
    settings.parse(document, where=str(path), known=KNOWN)
    wanted = {"name": name, **{key: _pairs(value, key) if isinstance(value, tuple) else value for key, value in said.items()}}
    entry = {key: value for key, value in wanted.items() if value not in (None, "", {})}
    changed = {**document, "objectives": [*(document.get("objectives") or []), entry]}
    settings.parse(changed, where=str(path), known=KNOWN)
    _append(path, entry, first=not document.get("objectives"))
    click.echo(str(path))
    click.echo(f"Added {name}. `sage-obs alerts export` writes its rules, `sage-obs alerts test` tries them.", err=True)


def _append(path: Path, entry: dict[str, Any], *, first: bool) -> None:
    """Add to the list without touching what is there, comments included, where the list is the last of the file; else rewrite it."""
    import yaml

    from sage_obs.files import replace_text

    text = path.read_text() if path.exists() else ""
    block = "".join(f"  {line}\n" for line in yaml.safe_dump([entry], sort_keys=False, default_flow_style=None).splitlines())
    added = f"{text.rstrip()}\n" if text.strip() else ""
    added += f"objectives:\n{block}" if first else block
    document = yaml.safe_load(text) or {}
    wanted = {**document, "objectives": [*(document.get("objectives") or []), entry]}
    try:
        kept = yaml.safe_load(added) == wanted
    except yaml.YAMLError:
        kept = False
    replace_text(path, added if kept else yaml.safe_dump(wanted, sort_keys=False))


def _pairs(said: tuple[str, ...], option: str) -> dict[str, list[str]]:
    pairs = {}
    for one in said:
        name, equals, values = one.partition("=")
        if not equals or not name or not values:
            raise click.BadParameter(f"{one!r} is not LABEL=VALUE", param_hint=f"--{option}")
        pairs[name] = values.split(",")
    return pairs


def _objectives(file: Path | None) -> tuple[Objective, ...]:
    from sage_obs.alerts import settings
    from sage_obs.alerts.catalogue import KNOWN

    return settings.load(file, known=KNOWN).objectives


def _facts(objective: Objective) -> dict[str, Any]:
    from sage_obs.slo.burn import BUDGET_DAYS

    return {
        "name": objective.name,
        "target": objective.target,
        "budget": f"{objective.budget:g} of the events, as {objective.budget * BUDGET_DAYS * 24 * 60:.0f} minutes in {BUDGET_DAYS} days",
        "sentence": objective.sentence,
        "bad": objective.events.bad_rate("5m"),
        "total": objective.events.total_rate("5m"),
    }
