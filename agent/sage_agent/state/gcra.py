"""The generic cell rate algorithm: one moment per key says how much of a limit is left.

Source: ITU-T I.371, annex A, in its virtual scheduling form. The functions are pure.
"""

from __future__ import annotations

from typing import Final

from sage_agent.state.base import Rate, Taken

STEPPED_SECONDS: Final = 60.0
"""A moment that is further ahead than a whole limit and this was written by a clock that has since been put back: it counts as over.

As much again is a store's longest timeout, for which whoever waits for a row may hold an old `now`.
"""


def interval(rate: Rate) -> float:
    """Seconds after which one comes back."""
    return 1.0 / rate.per_second


def take(arrival: float, rate: Rate, *, cost: int, now: float) -> tuple[float, Taken]:
    """The theoretical arrival time after `cost` was asked for at `now`, and what comes of it; unchanged where it is refused."""
    step = interval(rate)
    if arrival - now > rate.burst * step + STEPPED_SECONDS:
        arrival = now
    begun = max(arrival, now)
    after = begun + cost * step
    if after - now > rate.burst * step * (1 + 1e-9):
        return arrival, refused(begun, rate, cost=cost, now=now)
    return after, granted(after, rate, now=now)


def granted(after: float, rate: Rate, *, now: float) -> Taken:
    """What is left once the theoretical arrival time is `after`."""
    step = interval(rate)
    used = max(0.0, after - now)
    left = int((rate.burst * step - used) / step + 1e-6)
    return Taken(
        allowed=True, remaining=max(0, left), retry_after=0.0 if left else max(0.0, used - (rate.burst - 1) * step), reset_after=used
    )


def refused(begun: float, rate: Rate, *, cost: int, now: float) -> Taken:
    """When there is enough again; never, said as the time in which all of it is back, where more is asked than there ever is."""
    step = interval(rate)
    used = max(0.0, begun - now)
    wait = used + (min(cost, rate.burst) - rate.burst) * step
    left = int((rate.burst * step - used) / step + 1e-6)
    return Taken(allowed=False, remaining=max(0, left), retry_after=max(wait, step * 1e-3), reset_after=used)
