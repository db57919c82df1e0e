"""From what was typed, or what a running stack left in its note, to the world a run works on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sage_obs.errors import ConfigError, UnavailableError
from sage_obs.slo.windows import PROFILES, Windows
from sage_obs.stack.state import StackNote, read_note

if TYPE_CHECKING:
    from sage_obs.platforms.base import Platform
    from sage_obs.runbooks.world import Approver, World
    from sage_obs.signals.base import Signals

DEFAULT_WINDOW: Final = 10.0
"""Seconds between the two scrapes of a target, unless told otherwise: an answer is wanted now."""
_SCRAPE_POLL: Final = 1.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What was typed: where the numbers come from ("" and () for the running stack), where the service runs, the windows."""

    state: Path
    prometheus: str
    targets: tuple[str, ...]
    window: float | None
    profile: str | None
    platform: str
    service: str


def open_world(asked: Asked, *, approve: Approver) -> World:
    """Everything a run touches. Raises ConfigError for options that contradict, UnavailableError where there is nothing to measure."""
    from sage_obs.platforms.select import open_ledger
    from sage_obs.runbooks.rails import KILL_SWITCH
    from sage_obs.runbooks.runs import automatic_rollbacks, check_service
    from sage_obs.runbooks.world import World

    check_service(asked.service)
    note = read_note(asked.state)
    windows = PROFILES[profile_of(asked, note)]
    platform = _platform(asked, note)
    return World(
        signals=_signals(asked, note, windows, platform),
        platform=platform,
        ledger=open_ledger(asked.state, service=asked.service) if platform else None,
        windows=windows,
        state=asked.state,
        approve=approve,
        automation=os.environ.get(KILL_SWITCH, "on"),
        recent=lambda: automatic_rollbacks(asked.state, asked.service),
    )


def profile_of(asked: Asked, note: StackNote | None) -> str:
    """The profile typed, else that of the running stack, else production."""
    return asked.profile or (note.profile if note else "production")


def _platform(asked: Asked, note: StackNote | None) -> Platform | None:
    """The platform asked for; `auto` is the local one where a stack runs on the state folder, else none is known."""
    from sage_obs.platforms.select import open_platform

    if asked.platform == "auto" and note is None:
        return None
    return open_platform(asked.platform, asked.state, service=asked.service)


def _signals(asked: Asked, note: StackNote | None, windows: Windows, platform: Platform | None) -> Signals:
    if asked.prometheus and asked.targets:
        raise ConfigError("--prometheus and --target are two places to measure at.", hint="Pass one of them.")
    prometheus = asked.prometheus or (note.prometheus_url if note and not asked.targets else "")
    if prometheus:
        from sage_obs.signals.prometheus import PrometheusSignals

        if asked.window is not None:
            raise ConfigError("--window is the time between two scrapes of a --target.", hint="With Prometheus the rules' windows count.")
        return PrometheusSignals(prometheus, windows)
    return _scrape(asked, windows, platform)


def _scrape(asked: Asked, windows: Windows, platform: Platform | None) -> Signals:
    from sage_obs.signals.scrape import ScrapeSignals

    if not asked.targets and platform is None:
        raise UnavailableError(
            f"No stack runs on {asked.state}, so there is nothing to measure.",
            hint="Start one with `sage-obs up`, or pass --prometheus URL, or --target URL to scrape the service directly.",
        )
    window = asked.window if asked.window is not None else min(windows.rate, DEFAULT_WINDOW)
    return ScrapeSignals(_targets(asked.targets, platform), replace(windows, rate=window))


def _targets(named: tuple[str, ...], platform: Platform | None) -> Callable[[], Sequence[str]]:
    """The targets named; where they are instances of the platform, whatever instances it has by then, for a rollback replaces them."""

    def instances() -> tuple[str, ...]:
        return tuple(one.ops_url for one in platform.describe().instances) if platform else ()

    known = {url.rstrip("/") for url in instances()}
    plain = {url.rstrip("/").removesuffix("/metrics") for url in named}
    return instances if platform and plain <= known else lambda: named
