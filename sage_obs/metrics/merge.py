"""The processes of a service seen as one: a store that holds what all of them have counted."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isnan
from operator import add
from typing import Final

from sage_obs.conventions import AGENT_METRICS, Merge, Metric
from sage_obs.errors import UnavailableError
from sage_obs.metrics.archive import Archived, ArchiveFile
from sage_obs.metrics.cells import Cell, HistogramCell
from sage_obs.metrics.folder import Folder
from sage_obs.metrics.member import Member
from sage_obs.metrics.memory import CellReader, Labels
from sage_obs.metrics.store import Family, Store

_METRICS: Final = {metric.name: metric for metric in AGENT_METRICS}
_ATTEMPTS: Final = 20
"""How often a reading is begun anew because a process was archived in the middle of it."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where one child of one process goes: its labels after the budget, and the cell, except a gauge's, which is made anew each time."""

    metric: Metric
    labels: Labels
    cell: Cell | HistogramCell | None
    places: tuple[int, ...] = ()

    def numbers(self, values: Sequence[float]) -> Sequence[float]:
        """The numbers by our own bounds: another release may have had others, whose counts go up to the next one of ours."""
        if not self.places:
            return values
        moved = [0.0] * (max(self.places) + 1)
        for place, value in zip(self.places, values, strict=True):
            moved[place] += value
        return moved


@dataclass(slots=True)
class _Source:
    """One member's files, and of each of its children where its numbers begin, how many they are and where they go."""

    reader: CellReader
    children: list[tuple[int, int, Target | None]]
    values: Sequence[float] = ()
    alive: bool = True


class Merged:
    """Counters and histograms are sums over all processes, dead or alive; gauges go by the rule of their metric, over the living.

    `store` is an empty one with the budget and the bounds of this process's own: a value that is past the budget here becomes `other`.
    Values keep their places for as long as this process answers.
    """

    def __init__(self, folder: Folder, store: Store, *, own: Member, on_error: Callable[[Exception], None]) -> None:
        self.store = store
        self._own = own
        self._on_error = on_error
        self._folder = folder
        self._families = {family.metric.name: family for family in store.families()}
        self._archive = ArchiveFile(folder.path)
        self._sources: dict[Member, _Source] = {}
        self._targets: dict[tuple[str, Labels, tuple[float, ...]], Target] = {}

    def update(self, own: Store, *, apart: bool) -> None:
        """Read everybody. Raises OSError where the folder cannot be read any more, and UnavailableError where it changes too fast.

        `apart` is whether `own` has children that found no room in its file and are known to this process alone.
        """
        try:
            self._fold()
        except OSError as exc:  # the dead count as they are, for as long as there is no room to write their sums
            self._on_error(exc)
        archived, sources = self._snapshot()
        if self._own not in self._sources:
            raise FileNotFoundError(f"{self._folder.path} has lost the files of this process")
        kept = [(child, self._target(child.name, child.labels, child.bounds)) for child in archived]
        self._clear()
        for child, target in kept:
            _count(target, child.values)
        gauges: dict[tuple[Metric, Labels], float] = {}
        for source in sources:
            _add(source, gauges)
        self._add_own(own, gauges, apart=apart)
        for (metric, labels), value in gauges.items():
            self.store.cell(metric, *labels).set(value)

    def _snapshot(self) -> tuple[Iterable[Archived], list[_Source]]:
        """The archive and the members that are not in it, at a time when nobody changed from the one to the other."""
        for _ in range(_ATTEMPTS):
            before = self._archive.stamp()
            try:
                archive = self._archive.load()
                members = [one for one in self._folder.members() if one.name not in archive.members]
                sources = [self._read(member) for member in members]
            except FileNotFoundError:
                continue
            if self._archive.stamp() == before:
                self._sources = {source.reader.member: source for source in sources}
                return archive.children, sources
        raise UnavailableError(f"The metrics of the processes in {self._folder.path} change too fast to be read.")

    def _read(self, member: Member) -> _Source:
        source = self._sources.get(member) or _Source(CellReader(self._folder.path, member), [])
        alive = member.process.alive  # before its numbers: a process that dies in between has all of them in
        new, source.values = source.reader.read()
        source.alive = alive and not source.reader.closed(source.values)
        source.children += ((one.at, one.size, self._target(one.name, one.labels, one.bounds)) for one in new)
        return source

    def _target(self, name: str, labels: Labels, bounds: tuple[float, ...]) -> Target | None:
        """None for a metric that this release does not have, or has with other labels."""
        family = self._families.get(name)
        if family is None or len(labels) != len(family.metric.labels) or bool(bounds) != bool(family.metric.buckets):
            return None
        key = (name, family.fold(labels), bounds)
        if (known := self._targets.get(key)) is None:
            known = self._targets[key] = _target(family, key[1], bounds)
        return known

    def _clear(self) -> None:
        for family in self._families.values():
            if family.metric.kind == "gauge":
                family.clear()
            for _, child in family.children():
                child.values = [0.0] * len(child.values)
                if isinstance(child, HistogramCell):
                    child.exemplars = {}

    def _add_own(self, own: Store, gauges: dict[tuple[Metric, Labels], float], *, apart: bool) -> None:
        """This process's exemplars, and what is in none of the files."""
        for family in own.families():
            if apart or family.metric.kind == "histogram":
                self._add_family(family, gauges)

    def _add_family(self, family: Family[Cell] | Family[HistogramCell], gauges: dict[tuple[Metric, Labels], float]) -> None:
        for labels, child in family.children():
            alone = isinstance(child.values, list)
            traced = isinstance(child, HistogramCell) and bool(child.exemplars)
            if not (alone or traced) or (target := self._target(family.metric.name, labels, family.metric.buckets)) is None:
                continue
            if alone and target.cell is None:
                _gauge(gauges, target, child.values[0])
            elif alone:
                _count(target, list(child.values))
            if isinstance(child, HistogramCell) and isinstance(target.cell, HistogramCell):
                target.cell.exemplars |= child.exemplars

    def _fold(self) -> None:
        """Move what dead processes have counted into the archive, unless another process is at it.

        From the replacement of the archive on they count there, and their files no more, whether this process lives to remove them.
        """
        if not self._dead():
            return
        with self._folder.lock() as mine:
            if mine:
                archive = self._archive.load()
                for name in archive.members:
                    self._folder.remove_member(name)
                dead = [self._read(member) for member in self._dead()]
                if dead or archive.members:
                    self._archive.replace((source.reader.member.name for source in dead), self._sums(archive.children, dead))
                for source in dead:
                    self._folder.remove_member(source.reader.member.name)

    def _dead(self) -> list[Member]:
        return [member for member in self._folder.members() if self._is_dead(member)]

    def _is_dead(self, member: Member) -> bool:
        source = self._sources.get(member)
        return not member.process.alive or (source is not None and not source.alive)

    def _sums(self, archived: Iterable[Archived], dead: Iterable[_Source]) -> Iterable[Archived]:
        """The archive with the dead in it, by labels after the budget: it never has more children than one process may have."""
        sums: dict[tuple[str, Labels], tuple[HistogramCell | Cell, list[float]]] = {}
        known: list[tuple[Target | None, Sequence[float]]] = [
            (self._target(child.name, child.labels, child.bounds), child.values) for child in archived
        ]
        for source in dead:
            known += [(target, source.values[at : at + size]) for at, size, target in source.children]
        for target, values in known:
            if target is not None and target.cell is not None:
                _, total = sums.setdefault((target.metric.name, target.labels), (target.cell, [0.0] * len(target.cell.values)))
                for place, value in enumerate(target.numbers(values)):
                    total[place] += value
        for (name, labels), (cell, total) in sums.items():
            yield Archived(name, labels, cell.bounds if isinstance(cell, HistogramCell) else (), total)


def _target(family: Family[Cell] | Family[HistogramCell], labels: Labels, bounds: tuple[float, ...]) -> Target:
    metric = _METRICS[family.metric.name]
    if metric.kind == "gauge":
        return Target(metric, labels, None)
    ours = family.metric.buckets
    places = () if bounds == ours else (*(bisect_left(ours, bound) for bound in bounds), len(ours), len(ours) + 1)
    return Target(metric, labels, family.child(*labels), places)


def _add(source: _Source, gauges: dict[tuple[Metric, Labels], float]) -> None:
    values = source.values
    for at, size, target in source.children:
        if target is None:
            continue
        if target.cell is None:
            if source.alive:
                _gauge(gauges, target, values[at])
        elif size == 1:
            target.cell.values[0] += values[at]
        else:
            _count(target, values[at : at + size])


def _count(target: Target | None, values: Sequence[float]) -> None:
    if target is not None and target.cell is not None:
        target.cell.values = list(map(add, target.cell.values, target.numbers(values)))


def _gauge(gauges: dict[tuple[Metric, Labels], float], target: Target, value: float) -> None:
    """Join what another process says of the same gauge; one that was taken back is NaN."""
    if isnan(value):
        return
    key = (target.metric, target.labels)
    gauges[key] = _JOIN[target.metric.merge](gauges[key], value) if key in gauges else value


_JOIN: Final[dict[Merge, Callable[[float, float], float]]] = {"sum": add, "min": min, "max": max}
