"""The time windows of the rules, as one value: production's, and the fast ones that drills use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_PRODUCTION_RATE: Final = 300.0
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION: Final = re.compile(r"(\d{1,9})(ms|s|m|h|d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows and intervals in seconds.

    `rate` is the window of every ratio and quantile. `novelty` is how far back a version must be missing to count as new, and how
    far back the reference ends, so that a release is never compared with itself; `reference` is how long the reference reaches.
    `hold_scale` shortens each trigger's `hold` and `keep`. `scrape` and `evaluation` are Prometheus's intervals.
    `bake` is how long a release must be healthy without a break to be called good, `evidence` the most a capture of evidence may take.
    """

    name: str
    rate: float
    novelty: float
    reference: float
    hold_scale: float
    scrape: float
    evaluation: float
    bake: float
    evidence: float

    def hold(self, seconds: float) -> float:
        """A trigger's hold or keep time under these windows, at least one evaluation."""
        return max(seconds * self.hold_scale, self.evaluation)

    def scaled(self, seconds: float) -> float:
        """A window of production's rules under these windows, as much shorter as `rate` is, and whole evaluations."""
        return max(2, round(seconds * self.rate / _PRODUCTION_RATE / self.evaluation)) * self.evaluation


PRODUCTION: Final = Windows(
    name="production", rate=_PRODUCTION_RATE, novelty=7200, reference=86400, hold_scale=1.0, scrape=15, evaluation=15, bake=300, evidence=20
)
DRILL: Final = Windows(name="drill", rate=10, novelty=30, reference=60, hold_scale=1 / 60, scrape=1, evaluation=1, bake=5, evidence=5)
PROFILES: Final = {windows.name: windows for windows in (PRODUCTION, DRILL)}


def duration(seconds: float) -> str:
    """Seconds as Prometheus writes them: `5m`, `2h`, `1500ms`."""
    milliseconds = round(seconds * 1000)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def seconds(text: str) -> float:
    """A duration of one unit, such as `5m`, in seconds. Raises ValueError for anything else, and for none at all."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration such as 30s, 5m, 6h or 3d")
    if not int(match[1]):
        raise ValueError("expected a duration of more than 0 s")
    return int(match[1]) * _UNITS[match[2]]
