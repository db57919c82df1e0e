"""A world for runbooks to act on: a platform and a ledger in memory or on tmp_path, measurements and a clock under the test's control."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sage_obs.errors import PlatformError
from sage_obs.platforms.base import Instance, PlatformState, Release
from sage_obs.platforms.ledger import Ledger, Standing
from sage_obs.runbooks.progress import Start
from sage_obs.runbooks.world import World, nobody
from sage_obs.signals.base import NO_FACTS, Facts
from sage_obs.slo.triggers import TRIGGERS, Measurement, Trigger
from sage_obs.slo.windows import DRILL, Windows

GOOD = Release("1.0.0", "sha256:good", 900.0)
BAD = Release("1.1.0", "sha256:bad", 990.0)
NOW = 1000.0
WINDOWS = replace(DRILL, evidence=1.0)
NO_PID = 2**22 + 1
"""Above the largest process id that Linux gives."""


@dataclass
class Clock:
    """Time that passes only when somebody sleeps; `ahead` is by how many seconds the wall clock was set since."""

    time: float = NOW
    ahead: float = 0.0

    def __call__(self) -> float:
        """The Unix time."""
        return self.time + self.ahead

    def monotonic(self) -> float:
        """Seconds that setting the clock does not change."""
        return self.time

    def sleep(self, seconds: float) -> None:
        """Let it pass."""
        self.time += seconds


@dataclass
class MemoryPlatform:
    """A platform in memory. It converges `delay` looks after it was asked; releases in `corrupt` cannot be used."""

    clock: Callable[[], float]
    desired: Release | None = BAD
    running: Release | None = BAD
    stored: tuple[Release, ...] = (BAD, GOOD)
    corrupt: frozenset[str] = frozenset()
    delay: int = 2
    stuck: bool = False
    in_progress: bool = False
    asked: list[str] = field(default_factory=list)
    name: str = "memory"
    service: str = "sage-agent"
    looks: int = 0

    def describe(self) -> PlatformState:
        """See Platform."""
        self.looks += 1
        if not self.stuck and self.desired != self.running and self.looks > self.delay:
            self.running = self.desired
        converged = self.desired == self.running
        return PlatformState(
            self.service, self.desired, self._instances(), converged, self.in_progress or not converged, "" if converged else "starting"
        )

    def _instances(self) -> tuple[Instance, ...]:
        if self.running is None:
            return ()
        one = self.running
        return (
            Instance("agent-1", one.version, one.digest, NO_PID, "http://127.0.0.1:1", "http://127.0.0.1:1", True, "/nonexistent", 0.0),
        )

    def releases(self) -> tuple[Release, ...]:
        """See Platform."""
        return tuple(one for one in self.stored if one.version not in self.corrupt)

    def release(self, version: str) -> Release:
        """See Platform."""
        if version in self.corrupt:
            raise PlatformError(f"Release folder {version} is corrupt.")
        found = [one for one in self.stored if one.version == version]
        if not found:
            raise PlatformError(f"There is no release {version}.")
        return found[0]

    def command(self, target: Release) -> tuple[str, ...]:
        """See Platform."""
        return ("deploy", target.version)

    def deploy(self, target: Release, *, by: str) -> None:
        """See Platform."""
        del by
        self.asked.append(target.version)
        self.desired = replace(target, deployed_at=self.clock())
        self.looks = 0

    def roll_back(self, target: Release, *, by: str) -> None:
        """See Platform."""
        self.deploy(target, by=by)


HEALTHY: Mapping[str, Measurement] = {
    "error-rate": Measurement(0.0, 400),
    "latency": Measurement(0.5, 400),
    "health": Measurement(0.0, 1),
    "customer-impact": Measurement(0.0, 400),
}
FAILING: Mapping[str, Measurement] = {**HEALTHY, "error-rate": Measurement(0.33, 400), "customer-impact": Measurement(0.33, 400)}
NOTHING: Mapping[str, Measurement] = {one.slug: Measurement(None, None) for one in TRIGGERS}


@dataclass
class FakeSignals:
    """Measurements by version now, and by version in the past."""

    now: dict[str, Mapping[str, Measurement]] = field(default_factory=lambda: {"1.1.0": FAILING, "1.0.0": HEALTHY})
    past: dict[str, Mapping[str, Measurement]] = field(default_factory=lambda: {"1.0.0": HEALTHY})
    live: tuple[str, ...] = ("1.1.0",)
    facts_now: Facts = NO_FACTS
    facts_past: Facts = NO_FACTS
    name: str = "a test"

    def measure(self, trigger: Trigger, *, version: str, at: float | None = None) -> Measurement:
        """See Signals."""
        return (self.now if at is None else self.past).get(version, NOTHING)[trigger.slug]

    def versions(self, *, at: float | None = None) -> tuple[str, ...]:
        """See Signals."""
        return self.live if at is None else tuple(self.past)

    def facts(self, *, at: float | None = None) -> Facts:
        """See Signals."""
        return self.facts_now if at is None else self.facts_past

    def snapshot(self, *, seconds: float) -> str:
        """See Signals."""
        return f"{seconds}\n"


@dataclass
class Scene:
    """A bad release in service, a good one before it, and a clock."""

    state: Path
    clock: Clock = field(default_factory=Clock)
    signals: FakeSignals = field(default_factory=FakeSignals)
    windows: Windows = WINDOWS
    approve: Callable[[Any], bool | None] = nobody
    automation: str = "on"
    recent: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        self.platform = MemoryPlatform(self.clock)
        self.ledger = Ledger(self.state / "ledger.jsonl", clock=self.clock)
        self.ledger.mark(GOOD, Standing.GOOD, by="test", reason="it baked")

    @property
    def world(self) -> World:
        """What a run gets."""
        return World(
            signals=self.signals,
            platform=self.platform,
            ledger=self.ledger,
            windows=self.windows,
            state=self.state,
            approve=self.approve,
            automation=self.automation,
            recent=lambda: self.recent,
            clock=self.clock,
            monotonic=self.clock.monotonic,
            sleep=self.clock.sleep,
        )

    def start(self, runbook: str = "incident", *, automatic: bool = True, **parameters: str) -> Start:
        """What a run is started with."""
        return Start(
            runbook, parameters, automatic=automatic, profile="drill", by="test", alerts=("SageRollbackErrorRate",), alerted_at=995.0
        )
