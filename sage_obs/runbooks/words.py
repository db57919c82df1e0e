"""Numbers and times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

from sage_obs.runbooks.records import Finding
from sage_obs.slo.triggers import Verdict, trigger


def quantity(value: float | None, unit: str) -> str:
    """`33.1 %` for a ratio, `2.4 times` for a multiple, `no data` for None."""
    if value is None:
        return "no data"
    return f"{value * 100:.3g} %" if unit == "ratio" else f"{value:.3g} times"


def finding(one: Finding) -> str:
    """A finding as one line."""
    subject = trigger(one.trigger)
    threshold = quantity(one.threshold, subject.unit)
    value = quantity(one.value, subject.unit)
    rests = f"{one.samples or 0:.0f} samples"
    if one.verdict is Verdict.UNKNOWN:
        return f"{subject.title} {value} on {rests}; {subject.min_samples:g} are needed to tell (threshold {threshold})"
    return f"{subject.title} {value} {'>' if one.verdict is Verdict.FAIL else '≤'} {threshold} on {rests}"


def clock(at: float) -> str:
    """A Unix time as RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(at: float) -> str:
    """A Unix time as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def span(seconds: float) -> str:
    """A length of time in the two largest units that matter: `4.2 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    total = round(seconds)
    for size, large, small_size, small in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if total >= size:
            rest = total % size // small_size
            return f"{total // size} {large} {rest} {small}" if rest else f"{total // size} {large}"
    return f"{total} s"
