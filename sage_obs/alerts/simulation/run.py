"""From rules and an incident to what the alerts did."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sage_obs.alerts.files import FileGroup
from sage_obs.alerts.simulation.batches import Batch, plan
from sage_obs.alerts.simulation.model import Change, Incident, Spell, State
from sage_obs.alerts.simulation.probe import Found, Sample, as_series, evaluate

_OWN = frozenset({"__name__", "alertname", "alertstate"})


@dataclass(frozen=True, slots=True)
class Simulation:
    """What was replayed and what every alert did in it, in order of appearance. `notes` say what is less exact than it could be."""

    incident: Incident
    spells: tuple[Spell, ...]
    notes: tuple[str, ...] = ()


def simulate(groups: Iterable[FileGroup], incident: Incident, *, promtool: Path, say: Callable[[str], None] = lambda _: None) -> Simulation:
    """Evaluate the rules over an incident; spells that were over before `incident.shown` are left out.

    `say` hears what is about to take long. Raises ConfigError for rules or series that cannot be evaluated.
    """
    planned = plan(groups)
    changes: list[Change] = []
    known = incident
    for batch in planned.batches:
        rules = sum(len(one.group.rules) for one in batch.groups)
        say(f"evaluating {rules} rules at {incident.seconds / batch.interval + 1:.0f} times ...")
        found = _evaluated(batch, known, promtool)
        changes += _changes(found, frozenset(rule.alert for one in batch.groups for rule in one.group.alerts))
        recorded = as_series(found.recorded, interval=batch.interval, step=incident.step, seconds=incident.seconds)
        known = replace(known, series=(*known.series, *recorded))
    spells = (spell for spell in _spells(changes) if spell.ended is None or spell.ended > incident.shown)
    return Simulation(incident, tuple(spells), _notes(planned.together))


def _evaluated(batch: Batch, incident: Incident, promtool: Path) -> Found:
    with tempfile.TemporaryDirectory(prefix="sage-obs-simulate-") as folder:
        return evaluate(batch, incident, promtool, Path(folder))


def _notes(together: tuple[str, ...]) -> tuple[str, ...]:
    if not together:
        return ()
    return (f"{', '.join(together)} read each other's series at different intervals; all are evaluated at the shortest.",)


def _changes(found: Found, alerts: frozenset[str]) -> Iterable[Change]:
    """An alert that fires stops to be pending at that moment, which is no end."""
    there = {(sample.at, _identity(sample)) for sample in found.appeared}
    yield from (_change(sample, State(sample.labels["alertstate"])) for sample in found.appeared if sample.labels["alertname"] in alerts)
    yield from (
        _change(sample, State.ENDED)
        for sample in found.gone
        if sample.labels["alertname"] in alerts and (sample.at, _identity(sample)) not in there
    )


def _change(sample: Sample, state: State) -> Change:
    return Change(sample.at, sample.labels["alertname"], _labels(sample.labels), state)


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in sorted(labels.items()) if name not in _OWN}


def _identity(sample: Sample) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in sample.labels.items() if name != "alertstate"))


def _spells(changes: Iterable[Change]) -> tuple[Spell, ...]:
    spells: list[list[Change]] = []
    current: dict[tuple[str, tuple[tuple[str, str], ...]], list[Change]] = {}
    for change in sorted(changes, key=lambda one: one.at):
        key = (change.alert, tuple(change.labels.items()))
        if key not in current:
            current[key] = []
            spells.append(current[key])
        current[key].append(change)
        if change.state is State.ENDED:
            del current[key]
    return tuple(Spell(tuple(spell)) for spell in spells)
