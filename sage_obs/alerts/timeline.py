"""The life of instances as promtool's input series: what each would put on /metrics, scrape by scrape.

Times are ticks, one per scrape. A counter starts at 0 with its process and a series that is no longer exposed goes stale at once, as
Prometheus marks it.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from sage_obs.conventions import (
    EXPERIENCE,
    HEALTH_STATUS,
    OVERALL,
    RELEASE_TIMESTAMP,
    REQUEST_OVERHEAD,
    REQUESTS,
    Experience,
    Outcome,
    Probe,
)
from sage_obs.slo.names import UP

_Labels = tuple[tuple[str, str], ...]
_AGENT: Final = ("agent_id", "agent")


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one instance serves per tick; fractions of a request are allowed. `p95` is the overhead's 95th percentile in seconds."""

    requests: float = 100.0
    failed: float = 0.0
    frustrated: float = 0.0
    p95: float = 0.04


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of an instance's life. `fresh` says that it begins with a new process.

    Without `traffic` or `probe` the instance has no such series. While it is not `up` it exposes nothing.
    """

    ticks: int
    version: str
    traffic: Traffic | None = field(default_factory=Traffic)
    probe: float | None = 1.0
    up: bool = True
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Instance:
    """A target that is first seen at tick `begins` and taken away after its last phase."""

    name: str
    begins: int
    phases: tuple[Phase, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """What a series does within a phase: a counter rises by `amount` each tick, a gauge is `amount`."""

    series: str
    amount: float
    counter: bool


@dataclass(slots=True)
class Values:
    """promtool's notation of one series, grown phase by phase."""

    tokens: list[str] = field(default_factory=list)
    ticks: int = 0
    value: float = 0.0

    def extend(self, sample: Sample, *, at: int, ticks: int, fresh: bool) -> None:
        """Go on from tick `at`; a counter from where it was, unless it is `fresh`."""
        continues = self.ticks == at and bool(self.tokens)
        self.end(at)
        rise = float(f"{sample.amount if sample.counter else 0.0:.12g}")
        first = sample.amount if not sample.counter else (self.value + rise if continues and not fresh else 0.0)
        self.tokens.append(f"{first!r}".removesuffix(".0") + f"+{rise:.12g}x{ticks - 1}")
        self.value = first
        for _ in range(ticks - 1):  # as promtool adds it up: a counter that goes on a hair lower would be a restart
            self.value += rise
        self.ticks += ticks

    def end(self, at: int) -> None:
        """Nothing is exposed up to tick `at`."""
        if self.tokens and self.ticks < at:
            self.tokens.append("stale")
            self.ticks += 1
        if self.ticks < at:
            self.tokens.append(f"_x{at - self.ticks}")
            self.ticks = at


def input_series(instances: Iterable[Instance], *, job: str, scrape: float) -> list[dict[str, str]]:
    """The `input_series` of promtool for these instances of a job, scraped every `scrape` seconds."""
    return [
        {"series": name, "values": " ".join(series.tokens)}
        for instance in instances
        for name, series in sorted(_series(instance, (("job", job), ("instance", instance.name)), scrape).items())
    ]


def _series(instance: Instance, target: _Labels, scrape: float) -> dict[str, Values]:
    every: dict[str, Values] = {}
    at = started = instance.begins
    for phase in instance.phases:
        started = at if phase.fresh else started
        for sample in _samples(target, phase, started * scrape):
            every.setdefault(sample.series, Values()).extend(sample, at=at, ticks=phase.ticks, fresh=phase.fresh)
        at += phase.ticks
    for series in every.values():
        series.end(max(at, series.ticks + 1))
    return every


def _samples(target: _Labels, phase: Phase, started: float) -> Iterator[Sample]:
    yield _gauge(UP, float(phase.up), target)
    if not phase.up:
        return
    yield _gauge(RELEASE_TIMESTAMP.name, started, target, ("version", phase.version))
    if phase.probe is not None:
        for probe, status in ((Probe.READINESS, phase.probe), (Probe.LIVENESS, 1.0)):
            yield _gauge(HEALTH_STATUS.name, status, target, _AGENT, ("check", OVERALL), ("probe", probe.value))
    if phase.traffic is not None:
        for metric, share, label in _events(phase.traffic):
            yield Sample(series_name(metric, (*target, _AGENT, label)), phase.traffic.requests * share, counter=True)


def _gauge(metric: str, amount: float, target: _Labels, *labels: tuple[str, str]) -> Sample:
    return Sample(series_name(metric, (*target, *labels)), amount, counter=False)


def _events(traffic: Traffic) -> Iterator[tuple[str, float, tuple[str, str]]]:
    """Each counter, how much it rises with a request, and its own label."""
    yield REQUESTS.name, 1 - traffic.failed, ("outcome", Outcome.SUCCESS.value)
    yield REQUESTS.name, traffic.failed, ("outcome", Outcome.SERVER_ERROR.value)
    yield REQUESTS.name, 1.0, ("outcome", Outcome.CLIENT_ERROR.value)
    yield EXPERIENCE.name, 1 - traffic.frustrated, ("outcome", Experience.SATISFIED.value)
    yield EXPERIENCE.name, traffic.frustrated, ("outcome", Experience.FRUSTRATED.value)
    yield f"{REQUEST_OVERHEAD.name}_count", 1.0, ("operation", "message")
    for bound, share in distribution(REQUEST_OVERHEAD.buckets, traffic.p95):
        yield f"{REQUEST_OVERHEAD.name}_bucket", share, ("le", bound)


def distribution(buckets: tuple[float, ...], value: float, *, quantile: float = 0.95) -> tuple[tuple[str, float], ...]:
    """Cumulative shares of two neighbouring buckets and +Inf for which Prometheus interpolates this quantile."""
    above = bisect.bisect_left(buckets, value)
    lower, upper = buckets[above - 1 : above + 1]
    position = (value - lower) / (upper - lower)
    if position > quantile:
        raise ValueError(f"a quantile {quantile:g} of {value} s is too close to the bucket bound {upper} s to be made of two buckets")
    below = (quantile - position) / (1 - position)
    return ((f"{lower:g}", below), (f"{upper:g}", 1.0), ("+Inf", 1.0))


def series_name(metric: str, labels: _Labels) -> str:
    """A series as PromQL selects it."""
    return metric + "{" + ", ".join(f'{name}="{value}"' for name, value in sorted(labels)) + "}"
