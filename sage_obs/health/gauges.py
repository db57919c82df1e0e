"""Health as gauges, brought up to date by each scrape without letting a slow check hold it up."""

from __future__ import annotations

from typing import Final

from sage_obs.conventions import HEALTH_STATUS, OVERALL, Probe
from sage_obs.health.board import Board
from sage_obs.metrics.store import Store

_SCRAPE_WAIT_SECONDS: Final = 0.2
"""What a scrape waits for checks: a fiftieth of Prometheus's default scrape timeout. Slower ones show their last finding."""


def refresh(store: Store, board: Board, *, agent_id: str) -> None:
    """Run the checks and set the gauges; those of checks that are gone disappear."""
    ready = board.readiness(wait=_SCRAPE_WAIT_SECONDS)
    overall = {Probe.LIVENESS: board.liveness(), Probe.READINESS: ready, Probe.STARTUP: board.startup()}
    values = {(agent_id, probe.value, OVERALL): answer.health for probe, answer in overall.items()}
    values |= {(agent_id, Probe.READINESS.value, name): result.status for name, result in board.results().items()}
    for labels, health in values.items():
        store.cell(HEALTH_STATUS, *labels).set(health.gauge)
    store.keep(HEALTH_STATUS, frozenset(values))
