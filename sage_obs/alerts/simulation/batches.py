"""Which groups are evaluated together. promtool evaluates all groups it is given at one interval, so each interval is a run of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sage_obs.alerts.files import FileGroup
from sage_obs.alerts.simulation.reading import ALERTS, rule_reads


@dataclass(frozen=True, slots=True)
class Batch:
    """Groups in order of evaluation, every `interval` seconds, and what later batches need of what they record."""

    interval: float
    groups: tuple[FileGroup, ...]
    wanted: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """Batches in order. `together` are groups of different intervals that wait for each other, evaluated at the shortest of them."""

    batches: tuple[Batch, ...]
    together: tuple[str, ...] = ()


def plan(groups: Iterable[FileGroup]) -> Plan:
    """Every group after those whose series it reads. Groups that read each other keep the order they are written in.

    Raises ConfigError, naming the rule, for an expression that cannot be read.
    """
    left = list(groups)
    needs = _needs(left)
    batches: list[Batch] = []
    together: tuple[str, ...] = ()
    while left:
        best = max((_ready(left, needs, interval) for interval in sorted({one.group.interval for one in left})), key=len)
        if not best:
            best = left
            together = tuple(one.group.name for one in left)
        batches.append(Batch(min(one.group.interval for one in best), tuple(_ordered(best, needs))))
        left = [one for one in left if not any(one is other for other in best)]
    return Plan(tuple(_with_wanted(batches)), together)


def _needs(groups: list[FileGroup]) -> Mapping[int, frozenset[int]]:
    """For each group, by its identity, the other groups whose series it reads."""
    makes = {id(one): {rule.record for rule in one.group.records} | (ALERTS if one.group.alerts else frozenset()) for one in groups}
    read = {id(one): _read(one) for one in groups}
    return {one: frozenset(other for other, made in makes.items() if other != one and made & names) for one, names in read.items()}


def _read(group: FileGroup) -> frozenset[str]:
    return frozenset(one.metric for line, rule in group.rules for one in rule_reads(group, line, rule))


def _ready(left: list[FileGroup], needs: Mapping[int, frozenset[int]], interval: float) -> list[FileGroup]:
    """The groups of this interval that need nothing of those left but each other."""
    some = [one for one in left if one.group.interval == interval]
    waiting = {id(one) for one in left}
    while True:
        among = {id(one) for one in some}
        kept = [one for one in some if not (needs[id(one)] & waiting) - among]
        if len(kept) == len(some):
            return kept
        some = kept


def _ordered(groups: list[FileGroup], needs: Mapping[int, frozenset[int]]) -> list[FileGroup]:
    """Those that are read first; where they read each other, as they came."""
    left, done = list(groups), []
    while left:
        among = {id(one) for one in left}
        one = next((one for one in left if not needs[id(one)] & among), left[0])
        done.append(one)
        left = [other for other in left if other is not one]
    return done


def _with_wanted(batches: list[Batch]) -> Iterable[Batch]:
    for number, batch in enumerate(batches):
        later = frozenset(name for other in batches[number + 1 :] for group in other.groups for name in _read(group))
        made = {rule.record for group in batch.groups for rule in group.group.records} | ALERTS
        yield Batch(batch.interval, batch.groups, later & made)
