"""One call of a tool: one count, one duration, one span."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from sage_obs.conventions import TOOL_CALLS, TOOL_DURATION, ErrorType, Outcome
from sage_obs.genai.nesting import used
from sage_obs.genai.spans import open_internal
from sage_obs.genai.taxonomy import classify, outcome_of
from sage_obs.genai.transcript import Capture, Gathered, named
from sage_obs.genai.waits import Wait, count_step
from sage_obs.metrics.active import internal_error, store
from sage_obs.metrics.budget import label_text
from sage_obs.metrics.cells import Cell, HistogramCell
from sage_obs.metrics.store import Store
from sage_obs.semconv import OPERATION, TOOL_NAME
from sage_obs.tracing.active import OpenSpan

_BOUND_AT_MOST: Final = 1000
_OPERATION: Final = "execute_tool"


@dataclass(frozen=True, slots=True)
class ToolCells:
    """What calls of one tool write."""

    outcomes: dict[Outcome, Cell]
    duration: HistogramCell

    @classmethod
    def bind(cls, store: Store, name: str) -> Self:
        """The cells of a tool, every outcome at 0 from the first call on."""
        return cls({outcome: store.cell(TOOL_CALLS, name, outcome.value) for outcome in Outcome}, store.histogram(TOOL_DURATION, name))


class _Bound:
    """The cells bound so far, for as long as the same store is in use."""

    __slots__ = ("_cells", "_store")

    def __init__(self) -> None:
        self._store: Store | None = None
        self._cells: dict[str, ToolCells] = {}

    def cells(self, name: str) -> ToolCells:
        if (now := store()) is not self._store:
            self._store, self._cells = now, {}
        if (found := self._cells.get(name)) is not None:
            return found
        made = ToolCells.bind(now, name)
        if len(self._cells) < _BOUND_AT_MOST:
            self._cells[name] = made
        return made


_bound: Final = _Bound()


class ToolCall:
    """A call under way: entered, left, and entered again for each step of a generator; then finished, once.

    Inside a library's call of the same tool, which is counted there, it does nothing. `attach` makes its span the current one inside, for
    functions, which nothing else can run in the middle of.
    """

    __slots__ = ("_attach", "_began", "_capture", "_clock", "_content", "_name", "_seconds", "_span", "_started", "_theirs", "_wait")

    def __init__(self, name: object, *, attach: bool, content: str | None = None, clock: Callable[[], float] = time.perf_counter) -> None:
        self._name = label_text(name)
        self._attach = attach
        self._content = content
        self._capture = Capture()
        self._clock = clock
        self._wait = Wait()
        self._started = self._theirs = False
        self._began = 0.0
        self._seconds = 0.0
        self._span: OpenSpan | None = None

    @property
    def name(self) -> str:
        """The tool's name, as a label."""
        return self._name

    def enter(self) -> None:
        """The tool works from here on, and the request waits for it."""
        if not self._started:
            self._started, self._theirs = True, used(self._name)
            if self._theirs:
                return
            count_step()
            attributes = {OPERATION: _OPERATION, TOOL_NAME: self._name}
            self._span = open_internal(f"{_OPERATION} {self._name}", attributes, attach=self._attach)
            self._capture.begin(self._span, self._content)
        elif self._theirs:
            return
        elif self._span is not None and self._attach:
            self._span.enter()
        self._wait.__enter__()
        self._began = self._clock()

    def given(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """What the function that is the tool is called with."""
        if self._capture.on:
            self._capture.say(lambda transcript: transcript.arguments(named(function, args, kwargs)))

    def asked(self, arguments: object) -> None:
        """What the tool is given."""
        self._capture.say(lambda transcript: transcript.arguments(arguments))

    @property
    def captured(self) -> bool:
        """Whether it is worth saying what it is given and returns."""
        return self._capture.on

    def answered(self, result: object, told: Callable[[Any], object] = lambda result: result) -> None:
        """What it has returned; `told` is what of it is worth telling."""
        self._capture.say(lambda transcript: transcript.result(told(result)))

    def leave(self) -> None:
        """The tool rests, or is done."""
        if self._theirs:
            return
        self._seconds += self._clock() - self._began
        self._wait.__exit__(None, None, None)
        if self._span is not None:
            self._span.leave()

    def finish(self, error: BaseException | None, *, kind: ErrorType | None = None) -> None:
        """Count it, as failed where `error` came out of it; `kind` is what its answer, or who knows the error better, says it is."""
        if self._theirs:
            return
        try:
            kind = kind or (None if error is None else classify(error))
            outcome = Outcome.SUCCESS if kind is None else outcome_of(kind)
            cells = _bound.cells(self._name)
            cells.outcomes[outcome].add()
            cells.duration.observe(self._seconds)
            if self._span is not None:
                self._span.end(
                    name=f"{_OPERATION} {self._name}", attributes=self._capture.attributes(), error_type=_error_type(kind, outcome)
                )
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
            internal_error("genai", exc)


def _error_type(kind: ErrorType | None, outcome: Outcome) -> str:
    """What nothing tells more of is the tool's error; a caller that went away is none."""
    if kind is None or outcome is Outcome.CANCELLED:
        return ""
    return ErrorType.TOOL_ERROR.value if kind is ErrorType.INTERNAL else kind.value


class InOnePiece:
    """A call that is entered once."""

    __slots__ = ("_call",)

    def __init__(self, call: ToolCall) -> None:
        self._call = call

    def __enter__(self) -> None:
        self._call.enter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._call.leave()
        self._call.finish(error)


class InSteps:
    """A call that is a generator, entered for each of its steps; between them it waits for whoever iterates."""

    __slots__ = ("_call", "_gathered")

    def __init__(self, call: ToolCall) -> None:
        self._call = call
        self._gathered = Gathered()

    def given(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """What the generator is called with."""
        self._call.given(function, args, kwargs)

    def gave(self, item: object) -> None:
        """One item."""
        if self._call.captured:
            self._gathered.add(item)

    def __enter__(self) -> None:
        self._call.enter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._call.leave()
        if error is not None:
            if self._call.captured:
                self._call.answered(self._gathered.value)
            self._call.finish(None if isinstance(error, StopIteration | StopAsyncIteration) else error)
