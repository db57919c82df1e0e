"""The children that one kind of request writes, bound once per operation and protocol."""

from __future__ import annotations

from dataclasses import dataclass

from sage_obs.conventions import (
    ERRORS,
    EXPERIENCE,
    REQUEST_DURATION,
    REQUEST_OVERHEAD,
    REQUESTS,
    REQUESTS_IN_FLIGHT,
    STEPS,
    TIME_TO_FIRST_BYTE,
    ErrorType,
    Experience,
    Outcome,
)
from sage_obs.metrics.cells import Cell, HistogramCell
from sage_obs.metrics.store import Store

_BOUND_AT_MOST = 1000
"""Operations are remembered up to here; the budget folds the rest, which are looked up each time."""


@dataclass(frozen=True, slots=True)
class OperationCells:
    """What is written per operation and protocol."""

    outcomes: dict[Outcome, Cell]
    duration: HistogramCell
    overhead: HistogramCell


class RequestMetrics:
    """The request metrics of one agent. Everything with a bounded label exists at 0 from the start, or the first errors are lost."""

    def __init__(self, store: Store, *, agent_id: str) -> None:
        self._store = store
        self._agent_id = agent_id
        self._bound: dict[tuple[str, str], OperationCells] = {}
        self.in_flight = store.cell(REQUESTS_IN_FLIGHT, agent_id)
        self.errors = {kind: store.cell(ERRORS, agent_id, kind.value) for kind in ErrorType}
        self.steps = store.histogram(STEPS, agent_id)
        self.experience = {kind: store.cell(EXPERIENCE, agent_id, kind.value) for kind in Experience}
        self.satisfied = self.experience[Experience.SATISFIED]

    def operation(self, operation: str, protocol: str) -> OperationCells:
        """The cells of an operation; a dictionary lookup from the second request on."""
        found = self._bound.get((operation, protocol))
        return self._bind(operation, protocol) if found is None else found

    def _bind(self, operation: str, protocol: str) -> OperationCells:
        store, agent = self._store, self._agent_id
        cells = OperationCells(
            {outcome: store.cell(REQUESTS, agent, operation, protocol, outcome.value) for outcome in Outcome},
            store.histogram(REQUEST_DURATION, agent, operation, protocol),
            store.histogram(REQUEST_OVERHEAD, agent, operation),
        )
        if len(self._bound) < _BOUND_AT_MOST:
            self._bound[(operation, protocol)] = cells
        return cells

    def first_byte(self, operation: str) -> HistogramCell:
        """The time to the first byte of a stream; its own family, as few operations stream."""
        return self._store.histogram(TIME_TO_FIRST_BYTE, self._agent_id, operation)
