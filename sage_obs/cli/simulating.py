"""What `sage-obs alerts simulate` asks for, does and prints."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from sage_obs.cli.output import print_table
from sage_obs.errors import ConfigError, ExitCode
from sage_obs.slo.windows import Windows

if TYPE_CHECKING:
    from sage_obs.alerts.files import FileGroup
    from sage_obs.alerts.settings import AlertSettings
    from sage_obs.alerts.simulation.model import Incident, State
    from sage_obs.alerts.simulation.run import Simulation

_MOST_WARMUP: Final = 6 * 3600.0
"""Seconds read before an incident unless more is asked for: new releases are told from known ones within two hours."""
_NAMED: Final = 5
"""Metrics named in a line."""
_RELATIVE: Final = re.compile(r"now(?:-(.+))?")


@dataclass(frozen=True, slots=True)
class Asked:
    """What was typed; None for what was not."""

    script: Path | None
    prometheus: str | None
    begin: str | None
    end: str | None
    step: str | None
    warmup: str | None
    jobs: tuple[str, ...]
    rules: tuple[Path, ...]
    alerts: tuple[str, ...]
    expected: tuple[str, ...]
    settings: AlertSettings
    windows: Windows
    as_json: bool


def simulate(asked: Asked) -> ExitCode:
    """Replay an incident and print what the alerts did; FAILED where an expected alert has not fired."""
    from sage_obs.alerts.simulation import run
    from sage_obs.stack.binaries import find

    _check(asked)
    groups = _groups(asked)
    incident = _incident(asked, groups)
    simulation = run.simulate(groups, incident, promtool=find("promtool", say=_say), say=_say)
    for note in simulation.notes:
        _say(f"note: {note}")
    _print(simulation, groups, as_json=asked.as_json)
    fired = {spell.alert for spell in simulation.spells if spell.fired}
    missing = [name for name in asked.expected if name not in fired]
    for name in missing:
        _say(f"{name} has not fired, and was expected to")
    return ExitCode.FAILED if missing else ExitCode.OK


def _say(text: str) -> None:
    click.echo(text, err=True)


def _check(asked: Asked) -> None:
    if (asked.script is None) == (asked.prometheus is None):
        raise ConfigError("An incident comes from --script or from --prometheus.", hint="Pass one of them.")
    past = {"--from": asked.begin, "--to": asked.end, "--step": asked.step, "--warmup": asked.warmup, "--job": asked.jobs or None}
    if asked.script:
        for option in (name for name, value in past.items() if value is not None):
            raise ConfigError(f"{option} belongs to --prometheus: a script says itself what it holds.", hint=f"Leave {option} out.")
    elif asked.begin is None or asked.end is None:
        raise ConfigError("--prometheus needs --from and --to.", hint="Such as --from now-2h --to now.")


def _groups(asked: Asked) -> tuple[FileGroup, ...]:
    """The rules to evaluate: the user's or ours, those that the alerts of interest rest on."""
    from sage_obs.alerts import catalogue
    from sage_obs.alerts.files import FileGroup, read_all
    from sage_obs.alerts.links import Links
    from sage_obs.alerts.simulation.choosing import chosen, unknown

    if asked.rules:
        groups = read_all(asked.rules, interval=asked.windows.evaluation)
    else:
        own = catalogue.groups(asked.windows, links=Links(), settings=asked.settings)
        groups = tuple(FileGroup("sage-obs", 0, group, tuple(0 for _ in group.rules)) for group in own)
    names = {rule.alert for one in groups for rule in one.group.alerts}
    if not names:
        raise ConfigError("There is no alert in these rules.", hint="Name files with alerting rules by --rules.")
    for name in asked.expected:
        if name not in names:
            raise unknown(name, names)
    return chosen(groups, asked.alerts)


def _incident(asked: Asked, groups: Sequence[FileGroup]) -> Incident:
    from sage_obs.alerts.simulation import script

    if asked.script is not None:
        return script.load(asked.script, scrape=asked.windows.scrape)
    return _past(asked, groups)


def _past(asked: Asked, groups: Sequence[FileGroup]) -> Incident:
    from sage_obs.alerts.simulation import history
    from sage_obs.alerts.simulation.reading import lookback, selectors

    now = time.time()
    begin, end = _moment("--from", asked.begin or "", now), _moment("--to", asked.end or "", now)
    if end > now + 1:
        raise ConfigError("--to is in the future.", hint="Take --to now.")
    needed = lookback(groups)
    warmup = min(needed, _MOST_WARMUP) if asked.warmup is None else _seconds("--warmup", asked.warmup)
    step = asked.windows.scrape if asked.step is None else _seconds("--step", asked.step)
    grid = max(step, *(one.group.interval for one in groups))
    when = history.span(begin, end, step=step, warmup=warmup, grid=grid)
    if warmup < needed:
        _say(f"note: {_words(warmup)} before --from are read, and the rules look back up to {_words(needed)}; --warmup reads more")
    incident, missing = history.fetch(asked.prometheus or "", selectors(groups), when, jobs=asked.jobs, say=_say)
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        _say(f"note: {len(missing)} metrics that the rules read are not there: {', '.join(missing[:_NAMED])}{more}")
    return incident


def _seconds(option: str, text: str) -> float:
    from sage_obs.alerts.nodes import span

    try:
        return span(text)
    except ValueError as exc:
        raise ConfigError(f"{option} is {exc}.") from exc


def _moment(option: str, text: str, now: float) -> float:
    """Unix seconds, `now`, `now-2h`, or a time in ISO 8601, UTC unless it says otherwise."""
    if relative := _RELATIVE.fullmatch(text.strip()):
        return now - (_seconds(option, relative[1]) if relative[1] else 0.0)
    try:
        seconds = float(text)
    except ValueError:
        try:
            at = dt.datetime.fromisoformat(text.strip())
        except ValueError as exc:
            hint = "Times are such as 2026-11-30T08:00:00Z, 1796025600 (Unix seconds), now or now-2h."
            raise ConfigError(f"{option} is {text!r}, which is no time.", hint=hint) from exc
        return (at if at.tzinfo else at.replace(tzinfo=dt.UTC)).timestamp()
    if not (math.isfinite(seconds) and 0 < seconds < 1e11):  # noqa: PLR2004 - the year 5000; milliseconds are beyond it
        raise ConfigError(f"{option} is {text}, which is no time in Unix seconds.")
    return seconds


def _words(seconds: float) -> str:
    return f"{seconds / 3600:.3g} h" if seconds >= 3600 else f"{seconds / 60:.3g} min"  # noqa: PLR2004 - an hour


def _print(simulation: Simulation, groups: Sequence[FileGroup], *, as_json: bool) -> None:
    from sage_obs.alerts.simulation import text

    changes = text.changes(simulation)
    if as_json:
        for change in changes:
            click.echo(json.dumps(text.data(change, simulation), sort_keys=True))
        return
    if not changes:
        click.echo("No alert became pending.")
        return
    plain = text.plain_labels(groups)
    print_table(("when", "state", "severity", "alert", "labels"), [text.row(change, simulation, plain) for change in changes])
    bars = text.bars(simulation, plain)
    width = max(len(bar.name) for bar in bars)
    click.echo(f"\n{' ' * width}  {text.scale(simulation)}")
    for bar in bars:
        click.echo(f"{bar.name.ljust(width)}  {''.join(_mark(state) for state in bar.states)}")
    click.echo(f"\n{' '.join(f'{_mark(state)} {state.value}' for state in text.MARKS if state != 'ended')}")


def _mark(state: State) -> str:
    from sage_obs.alerts.simulation.text import MARKS

    colour = {"pending": "yellow", "firing": "red"}.get(state.value)
    return click.style(MARKS[state], fg=colour) if colour else MARKS[state]
