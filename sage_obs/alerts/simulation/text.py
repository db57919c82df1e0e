"""What alerts did, as lines: each change in order of time, and a bar for each spell."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from sage_obs.alerts.files import FileGroup
from sage_obs.alerts.simulation.model import Change, Incident, Spell, State
from sage_obs.alerts.simulation.run import Simulation
from sage_obs.conventions import LABEL_SEVERITY

WIDTH: Final = 60
"""Characters of a bar; with names it fits a terminal of a hundred or so."""
MARKS: Final = {State.ENDED: ".", State.PENDING: "-", State.FIRING: "#"}
_DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Bar:
    """An alert's course: one state for each of `WIDTH` stretches of time, the worst within it."""

    name: str
    states: tuple[State, ...]


def when(at: float, origin: float) -> str:
    """A moment: UTC where the incident was real, else the time since its beginning."""
    if origin:
        return dt.datetime.fromtimestamp(origin + at, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    days, rest = divmod(round(at), _DAY)
    hours, minutes, seconds = rest // 3600, rest % 3600 // 60, rest % 60
    return f"+{f'{days}d ' if days else ''}{hours:02d}:{minutes:02d}:{seconds:02d}"


def changes(simulation: Simulation) -> tuple[Change, ...]:
    """Every change, in order of time."""
    every = (change for spell in simulation.spells for change in spell.changes)
    return tuple(sorted(every, key=lambda one: (one.at, one.alert)))


def row(change: Change, simulation: Simulation, plain: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    """When, state, severity, alert and labels of a change; `plain` are labels by alert that say nothing as they never change."""
    return (
        when(change.at, simulation.incident.origin),
        change.state.value,
        change.labels.get(LABEL_SEVERITY, ""),
        change.alert,
        labels_text(change.labels, plain.get(change.alert, ())),
    )


def data(change: Change, simulation: Simulation) -> dict[str, object]:
    """A change as JSON has it: `time` is null for an incident that never was, `seconds` count from where alerts are shown."""
    origin = simulation.incident.origin
    return {
        "alert": change.alert,
        "labels": dict(change.labels),
        "seconds": round(change.at - simulation.incident.shown, 3),
        "state": change.state.value,
        "time": when(change.at, origin) if origin else None,
    }


def labels_text(labels: Mapping[str, str], without: Collection[str]) -> str:
    """Labels that tell alerts of one name apart."""
    return " ".join(f"{name}={value}" for name, value in labels.items() if name not in without)


def plain_labels(groups: Collection[FileGroup]) -> dict[str, frozenset[str]]:
    """By alert, the labels that its rule gives it without a template."""
    return {
        rule.alert: frozenset(name for name, value in rule.labels.items() if "{{" not in value)
        for one in groups
        for rule in one.group.alerts
    }


def bars(simulation: Simulation, plain: Mapping[str, frozenset[str]]) -> tuple[Bar, ...]:
    """A bar for each alert, in order of appearance; several spells of one share it."""
    spells: dict[str, list[Spell]] = {}
    for spell in simulation.spells:
        labels = labels_text(spell.labels, plain.get(spell.alert, ()))
        spells.setdefault(f"{spell.alert} {labels}".strip(), []).append(spell)
    return tuple(Bar(name, tuple(_states(some, simulation.incident))) for name, some in spells.items())


def _states(spells: list[Spell], incident: Incident) -> Iterator[State]:
    length = (incident.seconds - incident.shown) / WIDTH
    for number in range(WIDTH):
        begin = incident.shown + number * length
        within = [_worst(spell, begin, begin + length) for spell in spells]
        yield max(within, key=list(MARKS).index)


def _worst(spell: Spell, begin: float, end: float) -> State:
    inside = [change.state for change in spell.changes if begin < change.at < end]
    return max((spell.state(begin), *inside), key=list(MARKS).index)


def scale(simulation: Simulation) -> str:
    """The times at the ends of the bars."""
    incident = simulation.incident
    first, last = when(incident.shown, incident.origin), when(math.floor(incident.seconds), incident.origin)
    return f"{first}{last.rjust(WIDTH - len(first))}"
