"""Everything a run touches outside itself, passed in."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sage_obs.errors import ExitCode, SageObsError
from sage_obs.platforms.base import Platform, PlatformState
from sage_obs.platforms.ledger import Ledger
from sage_obs.runbooks.records import Decision, Finding
from sage_obs.signals.base import Signals
from sage_obs.slo.triggers import trigger
from sage_obs.slo.windows import Windows


class StoppedError(SageObsError):
    """The process was asked to stop; the run goes on where it stopped when it is resumed."""

    exit_code = ExitCode.RESUMABLE


Approver = Callable[[Decision], bool | None]
"""Asks a person; None where there is nobody to ask."""


def nobody(decision: Decision) -> None:
    """An approver for runs that nobody watches."""
    del decision


@dataclass(frozen=True, slots=True)
class World:
    """The outside of a run. `platform` and `ledger` are None where it is not known what the service runs on.

    `automation` is the kill switch's value, `recent` the Unix times of automatic rollbacks of this service by other runs.
    `clock` is the Unix time, for what is written down and compared with what was; `monotonic` the seconds by which time is measured
    while it passes, whatever becomes of the clock. `sleep` takes seconds and may raise StoppedError.
    """

    signals: Signals
    platform: Platform | None
    ledger: Ledger | None
    windows: Windows
    state: Path
    approve: Approver = nobody
    automation: str = "on"
    recent: Callable[[], tuple[float, ...]] = tuple
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def describe(self) -> PlatformState | None:
        """The platform's state, None where there is no platform or nothing was ever deployed on it. Raises PlatformError."""
        state = self.platform.describe() if self.platform else None
        return state if state and state.desired else None

    def measure(self, slugs: tuple[str, ...], versions: tuple[str, ...], *, at: float | None = None) -> tuple[Finding, ...]:
        """Every trigger for every version. Raises UnavailableError."""
        return tuple(
            Finding.of(trigger(slug), version, self.signals.measure(trigger(slug), version=version, at=at))
            for version in versions
            for slug in slugs
        )
