"""The trials of every condition: it fires just after its threshold and time, and is silent just before.

A trial is a job of its own, so that those of a condition run side by side. It says from when to when the alert fires for it; at any
other time it must not. Times are ticks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sage_obs.alerts.conditions import Condition
from sage_obs.alerts.stages import INSTANCE, STAGES, Course, Part, Stage, observed
from sage_obs.alerts.timeline import Sample, Values, series_name
from sage_obs.conventions import (
    ALERT_WATCHDOG,
    BUILD_INFO,
    CERTIFICATE_EXPIRY,
    LABEL_SLO,
    LLM_CALL_DURATION,
    LLM_COST,
    MEMORY_LIMIT,
    RELEASE_TIMESTAMP,
)
from sage_obs.slo.burn import BURNS, Burn
from sage_obs.slo.names import PROCESS_MEMORY, UP
from sage_obs.slo.objectives import OBJECTIVES, Counted, Objective, Timed
from sage_obs.slo.windows import Windows, seconds

AFTER: Final = 1.2
BEFORE: Final = 0.8
_ENOUGH: Final = 1.3
"""Times the least number of events; no window is a multiple of it, so that the number is never met exactly."""
_BEGINS: Final = 4
"""Ticks before anything begins."""
_BEYOND: Final = 3
"""Ticks that an alert fires at least, where its end is looked at."""
_PLENTY: Final = 100_000.0
"""Events in a tick, so many that the share alone decides."""
_LONGEST_CALM: Final = 6 * 3600.0
"""Seconds; longer windows are made as these are, and days take promtool minutes."""
_HOUR: Final = 3600.0
_DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Piece:
    """So many ticks of a series; None where it is not exposed. `fresh` begins with a new process, a counter at 0."""

    ticks: int
    amount: float | None
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Flow:
    """A series over time."""

    metric: str
    labels: tuple[tuple[str, str], ...]
    counter: bool
    pieces: tuple[Piece, ...]
    instance: str = INSTANCE

    def data(self, job: str) -> dict[str, str]:
        """As promtool reads it."""
        name = series_name(self.metric, (("job", job), ("instance", self.instance), *self.labels))
        values, at = Values(), 0
        for piece in self.pieces:
            if piece.amount is not None:
                values.extend(Sample(name, piece.amount, self.counter), at=at, ticks=piece.ticks, fresh=piece.fresh)
            at += piece.ticks
        values.end(at + 1)
        return {"series": name, "values": " ".join(values.tokens)}


@dataclass(frozen=True, slots=True)
class Fires:
    """An alert with these labels beside the job and the rule's, from tick `begins` until before tick `ends`, None where it stays."""

    labels: Mapping[str, str]
    begins: int
    ends: int | None
    value: Callable[[int], float]


@dataclass(frozen=True, slots=True)
class Trial:
    """What a job exposes, how long, and when the alert fires for it; `looks` are ticks at which it must be right beside the edges."""

    name: str
    flows: tuple[Flow, ...]
    ticks: int
    fires: Fires | None = None
    looks: tuple[int, ...] = ()
    alone: bool = True
    """Whether the alert has the trial's job among its labels."""
    among: str = ""
    """The objective that is looked at, where the same events may spend the budget of another."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Windows in ticks, where a group is evaluated at each of them."""

    windows: Windows
    tick: float

    def window(self, production: float) -> int:
        """A window of production's seconds."""
        return round(self.windows.scaled(production) / self.tick)

    @property
    def rate(self) -> int:
        """The window of rates."""
        return round(self.windows.rate / self.tick)

    def hold(self, condition: Condition) -> int:
        """How long a condition must hold."""
        return round(condition.held(self.windows, self.tick) / self.tick)

    def keep(self, condition: Condition) -> int:
        """How long an alert outlives it."""
        return round(condition.kept(self.windows, self.tick) / self.tick)


def trials(condition: Condition, windows: Windows, *, tick: float, objectives: Sequence[Objective] = OBJECTIVES) -> tuple[Trial, ...]:
    """The trials of a condition in a group that is evaluated every `tick` seconds. Raises KeyError for one without any.

    The first of the objectives goes through all of those of a budget, the others through the most important.
    """
    clock = Clock(windows, tick)
    if condition.alert in _BURNS:
        first, *others = objectives
        one = _BURNS[condition.alert]
        more = others if one is BURNS[0] else []
        return (
            *_burn(condition, clock, one, first),
            *(trial for other in more for trial in _burn(condition, clock, one, other, brief=True)),
        )
    special = _SPECIAL.get(condition.alert)
    return tuple(special(condition, clock) if special is not None else _of_stage(condition, STAGES[condition.alert], clock))


def _of_stage(condition: Condition, stage: Stage, clock: Clock) -> Iterator[Trial]:
    window = clock.rate if stage.window is None else clock.window(stage.window)
    course = stage.course(window)
    above, below = stage.levels or _levels(condition)
    if not _can_be_tried(condition, stage, above, below):
        return
    yield _above(condition, stage, course, clock, above)
    ticks = course.since + clock.hold(condition) + window + _BEYOND
    yield _silent("just-below-the-threshold", stage.make(below, stage.plenty, clock.tick), ticks)
    if course.since == 0:
        yield _silent("over-before-the-hold-time", stage.make(above, stage.plenty, clock.tick), clock.hold(condition))
        if stage.measured:
            odd = [_with(part, math.nan) for part in stage.make(above, stage.plenty, clock.tick)]
            yield _silent("not-a-number", odd, ticks)
    else:
        restarts = stage.make(below, stage.plenty, clock.tick)
        yield _restarting("restarted-below-the-threshold", restarts, ticks)
    if condition.samples is not None:
        few = condition.min_samples / window * BEFORE
        yield _silent("too-few-events", stage.make(above, few, clock.tick), ticks)
        enough = condition.min_samples / window * _ENOUGH
        yield _above(condition, stage, _later(course, window), clock, above, name="just-enough-events", events=enough)
    yield _silent("nothing-but-the-target", [], ticks)


def _can_be_tried(condition: Condition, stage: Stage, above: float, below: float) -> bool:
    """Whether the levels lie on both sides of the threshold and can be made; of an operator's own threshold they may not."""
    over, under = (above, below) if condition.sign == ">" else (below, above)
    try:
        for level in (above, below):
            stage.make(level, stage.plenty, 1.0)
    except ValueError:  # too close to a bucket's bound
        return False
    return under <= condition.threshold < over or under < condition.threshold <= over


def _levels(condition: Condition) -> tuple[float, float]:
    over, under = condition.threshold * AFTER, condition.threshold * BEFORE
    return (over, under) if condition.sign == ">" else (under, over)


def _later(course: Course, window: int) -> Course:
    """A course that is decided by the number of events, which grows with the window's filling."""
    since = max(course.since, math.ceil(window / _ENOUGH))
    return Course(since, course.ends, course.shape, least=window + 1)


def _above(
    condition: Condition, stage: Stage, course: Course, clock: Clock, level: float, *, name: str = "", events: float | None = None
) -> Trial:
    """To the tick: the hold time, and how long the alert is kept."""
    gone = max(course.since + clock.hold(condition) + _BEYOND, course.least)
    ends = course.ends(gone)
    parts = stage.make(level, stage.plenty if events is None else events, clock.tick)
    last = _BEGINS + ends + clock.keep(condition) + 2
    fires = Fires(
        labels=stage.labels,
        begins=_BEGINS + course.since + clock.hold(condition),
        ends=None if name else _BEGINS + ends + clock.keep(condition),
        value=lambda tick: level * course.shape(min(tick - _BEGINS, ends - 1), gone),
    )
    flows = tuple(_flow(part, gone, last) for part in parts)
    return Trial(name or "just-above-the-threshold", flows, _BEGINS + gone if name else last, fires)


def _flow(part: Part, gone: int, last: int) -> Flow:
    """A part that begins after a while and is over at `gone`."""
    rest = last - _BEGINS - gone
    after = () if rest <= 0 else (Piece(rest, part.amount if part.steady else 0.0 if part.counter else None),)
    return Flow(part.metric, part.labels, part.counter, (Piece(_BEGINS, None), Piece(gone, part.amount), *after), part.instance)


def _silent(name: str, parts: Sequence[Part], ticks: int) -> Trial:
    """Parts that are there for so long, and no alert."""
    there = parts or [Part(UP, 1.0)]
    last = _BEGINS + ticks + 2
    return Trial(name, tuple(_flow(part, ticks, last) for part in there), last, looks=(_BEGINS + ticks - 1, last - 1))


def _restarting(name: str, parts: Sequence[Part], ticks: int) -> Trial:
    """Parts of a process that starts anew in the middle."""
    half = ticks // 2
    flows = (
        Flow(part.metric, part.labels, part.counter, (Piece(_BEGINS, None), Piece(half, part.amount), Piece(half, part.amount, fresh=True)))
        for part in parts
    )
    last = _BEGINS + 2 * half
    return Trial(name, tuple(flows), last, looks=(_BEGINS + half, _BEGINS + half + 2, last - 1))


def _with(part: Part, amount: float) -> Part:
    return Part(part.metric, amount, part.labels, part.counter, part.steady, part.instance)


def _always(value: float) -> Callable[[int], float]:
    return lambda _: value


# Conditions whose course is their own.


def _absent(condition: Condition, clock: Clock) -> Iterator[Trial]:
    """A job whose targets all go; one of which one stays; one that was gone for long before."""
    hour, there = clock.window(_HOUR), 5
    instances = ("a:9090", "b:9090")
    last = there + hour + clock.keep(condition) + 2

    def flows(stays: int) -> tuple[Flow, ...]:
        return tuple(
            Flow(metric, labels, counter=False, pieces=(Piece(last if n < stays else there, 1.0),), instance=instance)
            for n, instance in enumerate(instances)
            for metric, labels in ((UP, ()), (BUILD_INFO.name, (("version", "1.0.0"),)))
        )

    begins, ends = there + clock.hold(condition), there + hour + clock.keep(condition)
    yield Trial("every-target-is-gone", flows(0), last, Fires({}, begins, ends, _always(float(len(instances)))))
    yield Trial("one-target-is-gone", flows(1), last, looks=(begins, begins + 1, ends - 1))
    other = Flow(UP, (), counter=False, pieces=(Piece(there, 1.0),))
    yield Trial("a-job-that-is-not-ours", (other,), last, looks=(begins, begins + 1, ends - 1))


def _crashing(condition: Condition, clock: Clock) -> Iterator[Trial]:
    """Three starts within the window; two."""
    window = clock.window(900)
    limit = round(condition.threshold)
    last = _BEGINS + window + clock.keep(condition) + 6

    def flow(starts: int) -> Flow:
        """A start every tick; each has a time of its own."""
        begun = Piece(starts + 1, 1.0)
        return Flow(RELEASE_TIMESTAMP.name, (("version", "1.0.0"),), counter=True, pieces=(begun, Piece(last - starts - 1, 0.0)))

    fires = Fires(
        {"instance": INSTANCE},
        limit + 1 + clock.hold(condition),
        window + 1 + clock.keep(condition),
        _always(float(limit + 1)),
    )
    yield Trial("one-start-too-many", (flow(limit + 1),), last, fires)
    yield Trial("as-often-as-it-may", (flow(limit),), last, looks=(limit + 2 + clock.hold(condition), window - 1))


def _leaking(condition: Condition, clock: Clock) -> Iterator[Trial]:
    """Memory that rises; that rises too little; that is high and rests; that rises and has not done so for long."""
    window, ahead = clock.window(3 * _HOUR), clock.window(12 * _HOUR)
    limit = float(2**30)
    hold = clock.hold(condition)
    last = window + hold + 4

    def flows(level: float, *, since: int = 0, resting: float = 0.0) -> tuple[Flow, ...]:
        """Memory of which `level` of the limit would be used, by what is known after `window` ticks."""
        pieces = (Piece(since, None),) if since else ()
        rising = level * limit / (window + ahead)
        memory = Piece(last - since, resting * limit if resting else rising)
        return (
            Flow(PROCESS_MEMORY.name, (), counter=not resting, pieces=(*pieces, memory)),
            Flow(MEMORY_LIMIT.name, (), counter=False, pieces=(Piece(last, limit),)),
        )

    def value(tick: int) -> float:
        return AFTER * (tick + ahead) / (window + ahead)

    yield Trial("just-above-the-threshold", flows(AFTER), last, Fires({"instance": INSTANCE}, window + hold, None, value))
    looks = (window + hold, last - 1)
    yield Trial("just-below-the-threshold", flows(BEFORE), last, looks=looks)
    yield Trial("high-and-at-rest", flows(1.0, resting=1.5), last, looks=looks)
    yield Trial("not-for-long-enough", flows(3 * AFTER, since=window // 2), last, looks=looks)


def _slow_model(condition: Condition, clock: Clock) -> Iterator[Trial]:
    """Twice as slow as usual; a little slower; slow as ever; with too few calls."""
    usual = 0.75
    labels = {"provider": "p", "model": "m"}
    hour, rate = clock.window(_HOUR), clock.rate
    past = 2 * rate
    now = past + hour + rate + 2
    hold = clock.hold(condition)
    last = now + hold + 6
    min_rate = condition.min_samples / rate

    def flows(seconds_: float, before: float, *, events: float = 100.0) -> tuple[Flow, ...]:
        earlier = (
            Flow(part.metric, part.labels, counter=True, pieces=(Piece(past, part.amount),), instance="old:9090")
            for part in observed(LLM_CALL_DURATION, before, 100.0, labels=labels | {"operation": "chat"})
        )
        later = (
            Flow(part.metric, part.labels, counter=True, pieces=(Piece(now, None), Piece(last - now, part.amount)))
            for part in observed(LLM_CALL_DURATION, seconds_, events, labels=labels | {"operation": "chat"})
        )
        return (*earlier, *later)

    slow, fast = usual * condition.threshold * AFTER, usual * condition.threshold * BEFORE
    begins = now + 1 + hold
    looks = (begins, last - 1)
    yield Trial("just-above-the-threshold", flows(slow, usual), last, Fires(labels, begins, None, _always(condition.threshold * AFTER)))
    yield Trial("just-below-the-threshold", flows(fast, usual), last, looks=looks)
    yield Trial("slow-as-ever", flows(slow, slow), last, looks=looks)
    yield Trial("too-few-events", flows(slow, usual, events=min_rate * BEFORE), last, looks=looks)
    yield Trial("nothing-to-compare-with", flows(slow, usual)[len(flows(slow, usual)) // 2 :], last, looks=looks)


def _dear(condition: Condition, clock: Clock) -> Iterator[Trial]:
    """Three times as dear as usual; a little dearer; dear as ever; dearer than nearly nothing."""
    hour = clock.window(_HOUR)
    past = 8 * hour
    now = past + 2 * hour
    hold = clock.hold(condition)
    last = now + hour + hold + 6

    def flows(usd: float, before: float) -> tuple[Flow, ...]:
        """What an hour costs now, and what one did."""
        labels = (("provider", "p"), ("model", "m"))
        return (
            Flow(LLM_COST.name, labels, counter=True, pieces=(Piece(past, _a_tick(before, clock)),), instance="old:9090"),
            Flow(LLM_COST.name, labels, counter=True, pieces=(Piece(now, None), Piece(last - now, _a_tick(usd, clock)))),
        )

    usual = 10.0
    dear = usual * condition.threshold * AFTER
    looks = (now + hour + hold + 2, last - 1)
    since = now + math.floor(hour / AFTER) + 1  # the hour's cost grows with the hour
    fires = Fires({}, since + hold, None, lambda tick: condition.threshold * AFTER * min(1.0, (tick - now) / hour))
    yield Trial("just-above-the-threshold", flows(dear, usual), last, fires)
    yield Trial("just-below-the-threshold", flows(usual * condition.threshold * BEFORE, usual), last, looks=looks)
    yield Trial("dear-as-ever", flows(dear, dear), last, looks=looks)
    yield Trial("dearer-than-nearly-nothing", flows(condition.threshold * BEFORE, 0.01), last, looks=looks)
    yield Trial("nothing-to-compare-with", flows(dear, usual)[1:], last, looks=looks)


def _a_tick(usd: float, clock: Clock) -> float:
    """What a tick costs where an hour costs that; the rule counts seconds, and its window is shorter in a drill."""
    return usd / _HOUR * clock.tick


def _expiring(condition: Condition, clock: Clock) -> Iterator[Trial]:
    """A certificate just within the days; just outside; one that is renewed before the hold time is over."""
    hold = clock.hold(condition)
    gone = hold + _BEYOND
    last = _BEGINS + gone + clock.keep(condition) + 2

    def flow(days: float, ticks: int) -> Flow:
        expiry = _BEGINS * clock.tick + days * _DAY
        pieces = (Piece(_BEGINS, None), Piece(ticks, expiry), Piece(last - _BEGINS - ticks, expiry + 90 * _DAY))
        return Flow(CERTIFICATE_EXPIRY.name, (("name", "server"),), counter=False, pieces=pieces)

    within, outside = condition.threshold * BEFORE, condition.threshold * AFTER

    def value(tick: int) -> float:
        return within - (min(tick, _BEGINS + gone - 1) - _BEGINS) * clock.tick / _DAY

    fires = Fires({"name": "server"}, _BEGINS + hold, _BEGINS + gone + clock.keep(condition), value)
    yield Trial("just-within", (flow(within, gone),), last, fires)
    yield Trial("just-outside", (flow(outside, gone),), last, looks=(_BEGINS + hold, _BEGINS + gone - 1))
    yield Trial("renewed-before-the-hold-time", (flow(within, hold),), last, looks=(_BEGINS + hold, last - 1))


def _burn(condition: Condition, clock: Clock, one: Burn | None, objective: Objective, *, brief: bool = False) -> Iterator[Trial]:
    """Errors at a steady share; at a smaller one; too few of them; in a burst that is over soon.

    Without a burn rate it is about the whole budget.
    """
    share = condition.threshold * objective.budget
    hold, keep, rate = clock.hold(condition), clock.keep(condition), clock.rate
    short = 0 if one is None else clock.window(seconds(one.short))
    gone = 1 + hold + max(_BEYOND, rate)
    ends = None if one is None else _BEGINS + gone - 1 + rate + short + keep
    last = _BEGINS + gone + rate + short + keep + 2

    def flows(bad: float, events: float, *, before: int = 0) -> tuple[Flow, ...]:
        rest = last - _BEGINS - gone
        return tuple(
            Flow(
                series.metric,
                series.labels,
                counter=True,
                pieces=(
                    Piece(_BEGINS, None),
                    *((Piece(before, events * series.always),) if before else ()),
                    Piece(gone, events * (series.always + bad * series.bad)),
                    Piece(rest, 0.0),
                ),
            )
            for series in _series_of(objective)
        )

    among = objective.name if brief else ""
    if share * AFTER < 1:  # else there are not as many bad events as would be too many
        fires = Fires({LABEL_SLO: objective.name}, _BEGINS + 1 + hold, ends, _always(condition.threshold * AFTER))
        yield Trial("just-above-the-threshold", flows(share * AFTER, _PLENTY), last, fires, among=among)
    looks = (_BEGINS + 1 + hold, _BEGINS + gone - 1, last - 1)
    if share * BEFORE < 1:
        yield Trial("just-below-the-threshold", flows(share * BEFORE, _PLENTY), last, looks=looks, among=among)
    if brief:
        return
    few = 8.0 / (share * AFTER) / (last - _BEGINS)
    yield Trial("too-few-bad-events", flows(share * AFTER, few), last, looks=looks)
    if one is not None and seconds(one.long) <= _LONGEST_CALM:
        long = clock.window(seconds(one.long))
        burst = (_BEGINS + long + 2 + hold, _BEGINS + long + gone - 1)
        yield Trial("a-burst-after-calm", flows(share * AFTER, _PLENTY, before=long), last + long, looks=burst)
    yield Trial("no-requests", flows(0.0, 0.0), last, looks=looks)


@dataclass(frozen=True, slots=True)
class _Series:
    """A series of an objective: how much it rises with each event, and how much more with a bad one."""

    metric: str
    labels: tuple[tuple[str, str], ...]
    always: float
    bad: float


def _series_of(objective: Objective) -> tuple[_Series, ...]:
    """What an objective is measured by."""
    match objective.events:
        case Counted(bad, total):
            where = tuple((name, values[0]) for name, values in total.include)
            worse = tuple((name, values[0]) for name, values in bad.include)
            fine = tuple((name, "fine") if (name, value) not in where else (name, value) for name, value in worse)
            return (_Series(bad.metric.name, fine, 1.0, -1.0), _Series(bad.metric.name, worse, 0.0, 1.0))
        case Timed(histogram, under, where):
            labels = tuple((name, values[0]) for name, values in where)
            bucket = (*labels, ("le", f"{under:g}"))
            return (_Series(f"{histogram.name}_count", labels, 1.0, 0.0), _Series(f"{histogram.name}_bucket", bucket, 1.0, -1.0))


def _watchdog(condition: Condition, clock: Clock) -> Iterator[Trial]:
    """It fires whatever there is."""
    begins = clock.hold(condition)
    yield Trial("always", (), begins + 5, Fires({}, begins, None, _always(1.0)), alone=False)


_BURNS: Final[Mapping[str, Burn | None]] = {
    **{f"SageErrorBudgetBurn{one.long}": one for one in BURNS},
    "SageErrorBudgetExhausted": None,
}
"""The alerts of budgets, and their burn rates."""
_SPECIAL: Final[Mapping[str, Callable[[Condition, Clock], Iterator[Trial]]]] = {
    "SageJobAbsent": _absent,
    "SageCrashLoop": _crashing,
    "SageMemoryLeak": _leaking,
    "SageLlmSlow": _slow_model,
    "SageCostAboveUsual": _dear,
    "SageCertificateExpiring": _expiring,
    "SageCertificateExpiringSoon": _expiring,
    ALERT_WATCHDOG: _watchdog,
}
"""By alert."""
