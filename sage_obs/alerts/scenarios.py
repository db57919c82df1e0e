"""What is tried on the rollback alerts: each fires just after its threshold and time, and stays silent just before.

A scenario is a job of its own, so that all of them run side by side. It says which alerts fire from when to when; at any other time
none may. Most have a good release on one instance since the start; at tick `begins`, when that release has long been known, something
happens, and at `end` all targets go away.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sage_obs.alerts.timeline import Instance, Phase, Traffic
from sage_obs.conventions import EXPERIENCE, REQUESTS
from sage_obs.slo.signals import QuantileOverReference, Share, UnhealthyShare
from sage_obs.slo.triggers import ERROR_RATE, HEALTH, Trigger
from sage_obs.slo.windows import Windows

OLD: Final = "1.0.0"
NEW: Final = "1.1.0"
AFTER: Final = 1.2
BEFORE: Final = 0.8
PLENTY: Final = 100.0
"""Requests per tick: enough samples after a single one."""
_SHARE_FIELD: Final = {REQUESTS.name: "failed", EXPERIENCE.name: "frustrated"}


@dataclass(frozen=True, slots=True)
class Firing:
    """An alert that must fire for a version with this value, from tick `begins` until before tick `ends`."""

    trigger: Trigger
    version: str
    value: float
    begins: int
    ends: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """A job's instances and every alert that fires for it; `name` is also the job's."""

    name: str
    instances: tuple[Instance, ...]
    firing: tuple[Firing, ...] = ()


@dataclass(frozen=True, slots=True)
class Bench:
    """The windows in ticks, and the instances scenarios are made of."""

    windows: Windows

    def ticks(self, seconds: float) -> int:
        """Seconds in scrapes."""
        return round(seconds / self.windows.scrape)

    @property
    def rate(self) -> int:
        """The rate window."""
        return self.ticks(self.windows.rate)

    @property
    def novelty(self) -> int:
        """How long a version is new."""
        return self.ticks(self.windows.novelty)

    @property
    def begins(self) -> int:
        """When something happens: every window that reaches into the past is filled from then on."""
        return self.novelty + self.rate

    @property
    def end(self) -> int:
        """When a scenario ends; what is new at `begins` still is."""
        return self.begins + min(self.novelty, 4 * self.rate) - 1

    def hold(self, trigger: Trigger) -> int:
        """How long the condition must hold."""
        return self.ticks(self.windows.hold(trigger.hold))

    def keep(self, trigger: Trigger) -> int:
        """How long the alert outlives its condition."""
        return self.ticks(self.windows.hold(trigger.keep))

    def old(self, traffic: Traffic = Traffic()) -> Instance:  # noqa: B008 - frozen
        """The good release, from the start to the end."""
        return Instance("old:9090", 0, (Phase(self.end, OLD, traffic),))

    def new(self, *phases: Phase, name: str = "new:9090") -> Instance:
        """An instance that appears at `begins`; without phases it serves well to the end."""
        return Instance(name, self.begins, phases or (Phase(self.end - self.begins, NEW),))

    def new_bad(self, trigger: Trigger, factor: float, *, requests: float = PLENTY, ticks: int = 0) -> tuple[Instance, ...]:
        """Instances of a new release on which the trigger's value is `factor` times its threshold, or the next share beyond."""
        ticks = ticks or self.end - self.begins
        if not isinstance(trigger.signal, UnhealthyShare):
            return (self.new(Phase(ticks, NEW, traffic(trigger, factor, requests=requests))),)
        failing, total = unhealthy(trigger, factor)
        return tuple(self.new(Phase(ticks, NEW, probe=float(n >= failing)), name=f"new{n}:9090") for n in range(total))

    def first(self, trigger: Trigger) -> int:
        """The first tick at which the condition of `new_bad` with plenty of requests holds: a rate needs two samples."""
        return self.begins + (0 if isinstance(trigger.signal, UnhealthyShare) else 1)

    def firing(self, trigger: Trigger, *, since: int, until: int = 0, value: float = 0.0) -> tuple[Firing, ...]:
        """The alert for a condition of the new release that holds from tick `since` until before `until`, or the end."""
        ends = (until or self.end) + self.keep(trigger)
        return (Firing(trigger, NEW, value or observed(trigger, AFTER), since + self.hold(trigger), ends),)

    def ticks_of_interest(self, trigger: Trigger) -> tuple[int, ...]:
        """When an alert would fire that must not: early in a job's life, after the hold time, with full windows, at the end."""
        hold = self.hold(trigger)
        return (self.rate + hold, self.begins, self.begins + hold + 2, self.begins + self.rate + hold + 2, self.end - 1)


def traffic(trigger: Trigger, factor: float, *, requests: float = PLENTY) -> Traffic:
    """Traffic in which the trigger's value is `factor` times its threshold, the reference being the bench's."""
    signal = trigger.signal
    if isinstance(signal, Share):
        return Traffic(**{"requests": requests, _SHARE_FIELD[signal.bad.metric.name]: trigger.threshold * factor})
    return Traffic(requests=requests, p95=Traffic().p95 * trigger.threshold * factor)


def unhealthy(trigger: Trigger, factor: float) -> tuple[int, int]:
    """How many of how many instances fail for a share of `factor` times the threshold, rounded away from the threshold."""
    if factor > 1:
        return math.ceil(trigger.threshold * factor * 5), 5
    return math.floor(trigger.threshold * factor * 4), 4


def observed(trigger: Trigger, factor: float) -> float:
    """The value that `Bench.new_bad` brings about."""
    if isinstance(trigger.signal, UnhealthyShare):
        failing, total = unhealthy(trigger, factor)
        return failing / total
    return trigger.threshold * factor


def of_trigger(trigger: Trigger, bench: Bench) -> Iterator[Scenario]:
    """The scenarios of one trigger."""
    yield _above(trigger, bench)
    yield Scenario("just-below-the-threshold", (bench.old(), *bench.new_bad(trigger, BEFORE)))
    yield _too_short(trigger, bench)
    yield Scenario("release-is-not-new", _gets_bad(trigger, bench))
    worst = Phase(bench.end, NEW, Traffic(failed=0.5, frustrated=0.5, p95=0.3), probe=0.0)
    yield Scenario("first-release-of-its-job", (Instance("first:9090", 0, (worst,)),))
    bare = Phase(bench.end - bench.begins, NEW, traffic=None, probe=None)
    yield Scenario("no-telemetry-but-the-release", (bench.old(), bench.new(bare)))
    match trigger.signal:
        case UnhealthyShare():
            alone = bench.new(Phase(bench.end - bench.begins, NEW, probe=0.0))
            yield Scenario("one-instance-failing", (bench.old(), alone), bench.firing(trigger, since=bench.begins, value=1.0))
        case Share():
            yield from _by_requests(trigger, bench)
        case QuantileOverReference():
            yield from _by_requests(trigger, bench)
            yield from _by_reference(trigger, trigger.signal, bench)


def _above(trigger: Trigger, bench: Bench) -> Scenario:
    """To the tick: the hold time, and how long the alert is kept once its target is gone."""
    since = bench.first(trigger)
    gone = since + bench.hold(trigger) + 3
    instances = bench.new_bad(trigger, AFTER, ticks=gone - bench.begins)
    return Scenario("just-above-the-threshold", (bench.old(), *instances), bench.firing(trigger, since=since, until=gone))


def _too_short(trigger: Trigger, bench: Bench) -> Scenario:
    """The condition ends one evaluation before the alert would fire."""
    gone = bench.first(trigger) + bench.hold(trigger)
    return Scenario("over-before-the-hold-time", (bench.old(), *bench.new_bad(trigger, AFTER, ticks=gone - bench.begins)))


def _gets_bad(trigger: Trigger, bench: Bench) -> tuple[Instance, ...]:
    """A release that was good for long gets bad at `begins`."""
    rest = bench.end - bench.begins
    if isinstance(trigger.signal, UnhealthyShare):
        return (Instance("old:9090", 0, (Phase(bench.begins, OLD), Phase(rest, OLD, probe=0.0))),)
    return (Instance("old:9090", 0, (Phase(bench.begins, OLD), Phase(rest, OLD, traffic(trigger, 2 * AFTER)))),)


def _by_requests(trigger: Trigger, bench: Bench) -> Iterator[Scenario]:
    """The least number of requests, 20 % below and above it per window, and none."""
    per_tick = trigger.min_samples / bench.rate
    few = bench.new_bad(trigger, 2 * AFTER, requests=per_tick * BEFORE)
    yield Scenario("too-few-requests", (bench.old(), *few))
    enough = bench.new_bad(trigger, AFTER, requests=per_tick * AFTER)
    since = bench.begins + math.ceil(bench.rate / AFTER)
    yield Scenario("just-enough-requests", (bench.old(), *enough), bench.firing(trigger, since=since))
    idle = bench.new(Phase(bench.end - bench.begins, NEW, Traffic(requests=0.0)))
    yield Scenario("no-requests", (bench.old(), idle))


def _by_reference(trigger: Trigger, signal: QuantileOverReference, bench: Bench) -> Iterator[Scenario]:
    """The reference's lower limit, and what stands in for it where nothing was observed."""

    def serving(reference: float, factor: float) -> Instance:
        p95 = reference * trigger.threshold * factor
        return bench.new(Phase(bench.end - bench.begins, NEW, Traffic(p95=p95)))

    firing = bench.firing(trigger, since=bench.first(trigger))
    fast = bench.old(Traffic(p95=signal.floor * 0.3))
    yield Scenario("slower-within-the-lower-limit", (fast, serving(signal.floor, BEFORE)))
    yield Scenario("slower-over-the-lower-limit", (fast, serving(signal.floor, AFTER)), firing)
    unseen = Instance("old:9090", 0, (Phase(bench.end, OLD, traffic=None),))
    yield Scenario("nothing-to-compare-with-within-the-objective", (unseen, serving(signal.otherwise, BEFORE)))
    yield Scenario("nothing-to-compare-with-over-the-objective", (unseen, serving(signal.otherwise, AFTER)), firing)


def of_releases(bench: Bench) -> Iterator[Scenario]:
    """Restarts, replacements and disappearances, judged by the error rate and by health."""
    since = bench.first(ERROR_RATE)
    bad = traffic(ERROR_RATE, AFTER)
    replaced = _replaced(bench, Traffic(), bad)
    yield Scenario("restarted-with-a-bad-release", replaced, bench.firing(ERROR_RATE, since=since))
    yield Scenario("restarted-with-a-good-release", _replaced(bench, Traffic(failed=0.5, frustrated=0.5, p95=0.3), Traffic()))
    yield _crashes(bench)
    yield _does_not_answer(bench)
    gone = bench.new(Phase(bench.hold(HEALTH), NEW, bad, probe=0.0))
    yield Scenario("target-taken-away", (bench.old(), gone))
    yield _known_by_then(bench)


def _replaced(bench: Bench, before: Traffic, after: Traffic) -> tuple[Instance, ...]:
    phases = (Phase(bench.begins, OLD, before), Phase(bench.end - bench.begins, NEW, after, fresh=True))
    return (Instance("same:9090", 0, phases),)


def _crashes(bench: Bench) -> Scenario:
    """A counter that starts again from 0 neither hides nor fakes errors."""
    bad = traffic(ERROR_RATE, AFTER)
    since = bench.first(ERROR_RATE)
    crash = since + bench.hold(ERROR_RATE) + 2
    rest = bench.end - crash
    crashing = bench.new(Phase(crash - bench.begins, NEW, bad), Phase(rest, NEW, bad, fresh=True))
    steady = Instance("old:9090", 0, (Phase(crash, OLD), Phase(rest, OLD, fresh=True)))
    return Scenario("restarted-with-the-same-release", (steady, crashing), bench.firing(ERROR_RATE, since=since))


def _does_not_answer(bench: Bench) -> Scenario:
    """It stays an alert for as long as the release is new, however long the target does not answer."""
    down = bench.begins + 3
    instance = bench.new(Phase(3, NEW), Phase(bench.end - down, NEW, up=False))
    return Scenario("target-does-not-answer", (bench.old(), instance), bench.firing(HEALTH, since=down, value=1.0))


def _known_by_then(bench: Bench) -> Scenario:
    """A release that was not rolled back in time is no longer new, and people decide."""
    known = bench.begins + bench.novelty
    gone = known + bench.keep(ERROR_RATE) + 1
    steady = Instance("old:9090", 0, (Phase(gone, OLD),))
    bad = bench.new(Phase(gone - bench.begins, NEW, traffic(ERROR_RATE, AFTER)))
    return Scenario("no-longer-new", (steady, bad), bench.firing(ERROR_RATE, since=bench.first(ERROR_RATE), until=known))
