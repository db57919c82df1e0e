"""One call to a language model: one inference, one count, one duration, one bill."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from sage_obs.conventions import (
    LLM_CALL_DURATION,
    LLM_CALLS,
    LLM_COST,
    LLM_ERRORS,
    LLM_TIME_TO_FIRST_TOKEN,
    LLM_TOKENS,
    UNKNOWN_PRICE,
    ErrorType,
    Outcome,
)
from sage_obs.genai.prices import price_of
from sage_obs.genai.taxonomy import classify, outcome_of
from sage_obs.genai.waits import Wait, count_step
from sage_obs.metrics.active import internal_error, store
from sage_obs.metrics.budget import label_text
from sage_obs.metrics.cells import Cell, HistogramCell
from sage_obs.metrics.store import Store
from sage_obs.tracing.active import OpenSpan, tracing
from sage_obs.tracing.ambient import CONVERSATION_ID, TENANT, ambient
from sage_obs.tracing.context import as_error_type, request_var

_BOUND_AT_MOST: Final = 1000


@dataclass(frozen=True, slots=True)
class ModelCells:
    """What calls to one model write."""

    outcomes: dict[Outcome, Cell]
    errors: dict[ErrorType, Cell]
    duration: HistogramCell
    input: Cell
    output: Cell

    @classmethod
    def bind(cls, store: Store, provider: str, model: str, operation: str) -> Self:
        """The cells of a model; everything with a bounded label exists at 0 from the first call on."""
        return cls(
            {outcome: store.cell(LLM_CALLS, provider, model, operation, outcome.value) for outcome in Outcome},
            {kind: store.cell(LLM_ERRORS, provider, model, kind.value) for kind in ErrorType},
            store.histogram(LLM_CALL_DURATION, provider, model, operation),
            store.cell(LLM_TOKENS, provider, model, "input"),
            store.cell(LLM_TOKENS, provider, model, "output"),
        )


class _Bound:
    """The cells bound so far, for as long as the same store is in use."""

    __slots__ = ("_cells", "_store")

    def __init__(self) -> None:
        self._store: Store | None = None
        self._cells: dict[tuple[str, str, str], ModelCells] = {}

    def cells(self, provider: str, model: str, operation: str) -> ModelCells:
        if (now := store()) is not self._store:
            self._store, self._cells = now, {}
        key = (provider, model, operation)
        if (found := self._cells.get(key)) is not None:
            return found
        made = ModelCells.bind(now, *key)
        if len(self._cells) < _BOUND_AT_MOST:
            self._cells[key] = made
        return made


_bound: Final = _Bound()


class LlmCall:
    """A call under way, as a context manager, sync or async. An exception is classified, counted and passes on untouched."""

    def __init__(self, provider: str, model: str, *, operation: str = "chat", clock: Callable[[], float] = time.perf_counter) -> None:
        self._provider = label_text(provider)
        self._model = label_text(model)
        self._operation = label_text(operation)
        self._clock = clock
        self._began = 0.0
        self._first_token: float | None = None
        self._input = 0
        self._output = 0
        self._error: ErrorType | None = None
        self._wait = Wait()
        self._span: OpenSpan | None = None

    def first_token(self) -> None:
        """The first token has arrived; later ones may say so again."""
        if self._first_token is None:
            self._first_token = self._clock() - self._began

    def usage(self, *, input: int = 0, output: int = 0) -> None:  # noqa: A002 - the conventions' word
        """The tokens the provider billed for this call so far; the last word counts. Input includes cache reads and writes.

        What is no number of tokens, such as the None of a provider that sent no usage, changes nothing and counts as an internal error.
        """
        self._input, self._output = _tokens(input, self._input), _tokens(output, self._output)

    def fail(self, error_type: ErrorType | str) -> None:
        """The call failed this way, whether or not an exception says so too; this word beats the exception's."""
        self._error = as_error_type(error_type)

    def __enter__(self) -> Self:
        count_step()
        self._wait.__enter__()
        self._began = self._clock()
        try:
            self._span = self._open_span()
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
            internal_error("genai", exc)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        seconds = self._clock() - self._began
        self._wait.__exit__(kind, error, trace)
        if error is not None and self._error is None:
            self._error = classify(error)
        try:
            self._record(seconds)
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
            internal_error("genai", exc)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.__exit__(kind, error, trace)

    def _record(self, seconds: float) -> None:
        cells = _bound.cells(self._provider, self._model, self._operation)
        cells.duration.observe(seconds)
        cells.outcomes[Outcome.SUCCESS if self._error is None else outcome_of(self._error)].add()
        if self._error is not None:
            cells.errors[self._error].add()
        if self._first_token is not None:
            store().histogram(LLM_TIME_TO_FIRST_TOKEN, self._provider, self._model).observe(self._first_token)
        self._bill(cells)
        self._close_span()

    def _bill(self, cells: ModelCells) -> None:
        cells.input.add(self._input)
        cells.output.add(self._output)
        price = price_of(self._provider, self._model)
        if price is None:
            store().cell(UNKNOWN_PRICE, self._provider, self._model).add()
        else:
            store().cell(LLM_COST, self._provider, self._model).add(price.cost(input=self._input, output=self._output))

    def _open_span(self) -> OpenSpan | None:
        """A client span; none where nobody receives spans or the request around is not sampled."""
        spans, request = tracing().spans, request_var.get()
        if spans is None or (request is not None and not request.sampled):
            return None
        attributes = {
            "gen_ai.operation.name": self._operation,
            "gen_ai.provider.name": self._provider,
            "gen_ai.request.model": self._model,
        }
        around = ambient()
        if CONVERSATION_ID in around:
            attributes["gen_ai.conversation.id"] = around[CONVERSATION_ID]
        if TENANT in around:
            attributes["sage.tenant"] = around[TENANT]
        return spans.client(name=f"{self._operation} {self._model}", attributes=attributes)

    def _close_span(self) -> None:
        if self._span is None:
            return
        usage = {"gen_ai.usage.input_tokens": self._input, "gen_ai.usage.output_tokens": self._output}
        error_type = "" if self._error is None else self._error.value
        self._span.end(name=f"{self._operation} {self._model}", attributes=usage if any(usage.values()) else {}, error_type=error_type)


def _tokens(given: float, before: int) -> int:
    try:
        return max(0, int(float(given)))
    except Exception as exc:  # noqa: BLE001 - the value is the provider's
        internal_error("genai", exc)
        return before


def llm_call(provider: str, model: str, *, operation: str = "chat") -> LlmCall:
    """Measure one call to a language model.

    `with llm_call("openai", "gpt-4o") as call: … call.usage(input=…, output=…)`. `operation` is one of the GenAI conventions': chat,
    text_completion, embeddings, generate_content.
    """
    return LlmCall(provider, model, operation=operation)
