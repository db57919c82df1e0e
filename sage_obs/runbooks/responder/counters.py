"""The responder's own metrics, in a registry of their own."""

from __future__ import annotations

from typing import Final

from sage_obs.conventions import RUNBOOK_DURATION, RUNBOOK_RUNS
from sage_obs.runbooks.model import Outcome

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Counters:
    """Runs by outcome and how long they took. Every outcome starts at 0, or the first of each would be lost to `rate`."""

    def __init__(self, runbooks: tuple[str, ...]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self._registry = CollectorRegistry()
        self._runs = Counter(RUNBOOK_RUNS.name, RUNBOOK_RUNS.help, RUNBOOK_RUNS.labels, registry=self._registry)
        self._seconds = Histogram(
            RUNBOOK_DURATION.name, RUNBOOK_DURATION.help, RUNBOOK_DURATION.labels, buckets=RUNBOOK_DURATION.buckets, registry=self._registry
        )
        for runbook in runbooks:
            self._seconds.labels(runbook)
            for outcome in Outcome:
                self._runs.labels(runbook, outcome.value)

    def ran(self, runbook: str, outcome: Outcome, *, seconds: float) -> None:
        """Count one finished run."""
        self._runs.labels(runbook, outcome.value).inc()
        self._seconds.labels(runbook).observe(seconds)

    def exposition(self) -> bytes:
        """The text format."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)
