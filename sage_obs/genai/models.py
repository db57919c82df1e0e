"""What calls to one model write, bound once per provider, model and operation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from sage_obs.conventions import (
    LLM_CACHED_TOKENS,
    LLM_CALL_DURATION,
    LLM_CALLS,
    LLM_COST,
    LLM_ERRORS,
    LLM_REASONING_TOKENS,
    LLM_TOKENS,
    ErrorType,
    Outcome,
)
from sage_obs.genai.usage import Usage
from sage_obs.metrics.active import store
from sage_obs.metrics.cells import Cell, HistogramCell
from sage_obs.metrics.store import Store

_BOUND_AT_MOST: Final = 1000


@dataclass(frozen=True, slots=True)
class ModelCells:
    """What calls to one model write."""

    outcomes: dict[Outcome, Cell]
    errors: dict[ErrorType, Cell]
    duration: HistogramCell
    input: Cell
    output: Cell
    cached_read: Cell
    cached_write: Cell
    reasoning: Cell

    @classmethod
    def bind(cls, store: Store, provider: str, model: str, operation: str) -> Self:
        """The cells of a model; everything with a bounded label exists at 0 from the first call on."""
        return cls(
            {outcome: store.cell(LLM_CALLS, provider, model, operation, outcome.value) for outcome in Outcome},
            {kind: store.cell(LLM_ERRORS, provider, model, kind.value) for kind in ErrorType},
            store.histogram(LLM_CALL_DURATION, provider, model, operation),
            store.cell(LLM_TOKENS, provider, model, "input"),
            store.cell(LLM_TOKENS, provider, model, "output"),
            store.cell(LLM_CACHED_TOKENS, provider, model, "read"),
            store.cell(LLM_CACHED_TOKENS, provider, model, "write"),
            store.cell(LLM_REASONING_TOKENS, provider, model),
        )

    def used(self, usage: Usage) -> None:
        """Count the tokens of one call."""
        self.input.add(usage.input)
        self.output.add(usage.output)
        if usage.cached_read:
            self.cached_read.add(usage.cached_read)
        if usage.cached_write:
            self.cached_write.add(usage.cached_write)
        if usage.reasoning:
            self.reasoning.add(usage.reasoning)


class Bound:
    """The cells bound so far, for as long as the same store is in use."""

    __slots__ = ("_cells", "_costs", "_store")

    def __init__(self) -> None:
        self._store: Store | None = None
        self._cells: dict[tuple[str, str, str], ModelCells] = {}
        self._costs: dict[tuple[str, str], Cell] = {}

    def cells(self, provider: str, model: str, operation: str) -> ModelCells:
        """The cells of a model; a dictionary lookup from the second call on."""
        now = self._now()
        key = (provider, model, operation)
        if (found := self._cells.get(key)) is not None:
            return found
        made = ModelCells.bind(now, *key)
        if len(self._cells) < _BOUND_AT_MOST:
            self._cells[key] = made
        return made

    def cost(self, provider: str, model: str) -> Cell:
        """What calls to a model have cost; only models with a price have one."""
        now = self._now()
        if (found := self._costs.get((provider, model))) is not None:
            return found
        made = now.cell(LLM_COST, provider, model)
        if len(self._costs) < _BOUND_AT_MOST:
            self._costs[provider, model] = made
        return made

    def _now(self) -> Store:
        if (now := store()) is not self._store:
            self._store, self._cells, self._costs = now, {}, {}
        return now
