"""One call to a language model: one inference, one count, one duration, one bill."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, Self

from sage_obs.conventions import GENAI_DURATION, GENAI_TOKENS, LLM_TIME_TO_FIRST_TOKEN, UNKNOWN_PRICE, ErrorType, Outcome
from sage_obs.genai.models import Bound, ModelCells
from sage_obs.genai.nesting import Counting, counting_here
from sage_obs.genai.prices import price_of
from sage_obs.genai.taxonomy import classify, outcome_of
from sage_obs.genai.transcript import Capture, answers_of, say_asked
from sage_obs.genai.usage import NOTHING, Usage, plain
from sage_obs.genai.waits import Wait, count_step
from sage_obs.metrics.active import internal_error, store
from sage_obs.metrics.budget import label_text
from sage_obs.metrics.store import Store
from sage_obs.semconv import (
    CACHE_CREATION_TOKENS,
    CACHE_READ_TOKENS,
    CONVERSATION,
    FINISH_REASONS,
    INPUT_TOKENS,
    OPERATION,
    OUTPUT_TOKENS,
    PROVIDER,
    REASONING_TOKENS,
    REQUEST_MODEL,
    RESPONSE_ID,
    RESPONSE_MODEL,
    TIME_TO_FIRST_CHUNK,
    said,
)
from sage_obs.tracing.active import Attributes, OpenSpan, tracing
from sage_obs.tracing.ambient import CONVERSATION_ID, TENANT, ambient
from sage_obs.tracing.context import Request, as_error_type, request_var

_REASONS_AT_MOST: Final = 8
_bound: Final = Bound()


class LlmCall:
    """A call under way, as a context manager, sync or async. An exception is classified, counted and passes on untouched.

    Calls that client libraries make inside are this call, and are not counted again. Without `spans` it makes none, because somebody
    else makes one of it. `content` is how much of what is said goes on the span, None for what is set around the call.
    """

    def __init__(
        self,
        provider: str,
        model: str,
        *,
        operation: str = "chat",
        spans: bool = True,
        content: str | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._provider = label_text(provider)
        self._model = label_text(model)
        self._operation = label_text(operation)
        self._spans = spans
        self._content = content
        self._clock = clock
        self._began = 0.0
        self._left: float | None = None
        self._first_token: float | None = None
        self._usage = NOTHING
        self._answer: dict[str, str | tuple[str, ...]] = {}
        self._error: ErrorType | None = None
        self._wait = Wait()
        self._span: OpenSpan | None = None
        self._request: Request | None = None
        self._counting = Counting()
        self.capture = Capture()

    def first_token(self) -> None:
        """The first token has arrived; later ones may say so again."""
        if self._first_token is None:
            self._first_token = self._clock() - self._began

    def usage(  # the conventions' words
        self,
        *,
        input: int = 0,  # noqa: A002
        output: int = 0,
        cached_read: int = 0,
        cached_write: int = 0,
        reasoning: int = 0,
    ) -> None:
        """The tokens the provider billed for this call so far; the last word counts. Input includes cache reads and writes.

        `cached_read`, `cached_write` and `reasoning` are parts of the two, not added to them. What is no number of tokens, such as the
        None of a provider that sent no usage, changes nothing and counts as an internal error.
        """
        if not (cached_read or cached_write or reasoning) and plain(input) and plain(output):
            self.used(Usage(input, output))
            return
        before = self._usage
        self.used(
            Usage.of(
                input=_tokens(input, before.input),
                output=_tokens(output, before.output),
                cached_read=_tokens(cached_read, before.cached_read),
                cached_write=_tokens(cached_write, before.cached_write),
                reasoning=_tokens(reasoning, before.reasoning),
            )
        )

    def used(self, usage: Usage) -> None:
        """The same, of a usage that has been normalised."""
        self._usage = usage

    def response(self, *, model: object = None, id: object = None, finish_reasons: Iterable[object] = ()) -> None:  # noqa: A002 - the conventions' word
        """What the answer says of itself, for the span; what is no text, or not said again, changes nothing."""
        if model is not None and isinstance(model, str) and model:
            self._answer[RESPONSE_MODEL] = label_text(model)
        if id is not None and isinstance(id, str) and id:
            self._answer[RESPONSE_ID] = label_text(id)
        reasons = tuple([label_text(reason) for reason in finish_reasons if isinstance(reason, str)])
        if reasons:
            before = self._answer.get(FINISH_REASONS, ())
            self._answer[FINISH_REASONS] = (*before, *reasons)[:_REASONS_AT_MOST]

    def asked(self, messages: object, *, system: object = None, tools: object = None) -> None:
        """What the model is sent, for the span where content is captured, and for nothing else.

        `messages` is a text or messages as OpenAI's chat has them, `system` a text or parts of one, `tools` their definitions.
        """
        self.capture.say(lambda transcript: say_asked(transcript, messages, system, tools))

    def answered(self, messages: object) -> None:
        """What the model has said, in the same way."""
        self.capture.say(lambda transcript: transcript.answered(answers_of(messages)))

    @property
    def traced(self) -> bool:
        """Whether there is a span of it."""
        return self._span is not None

    @property
    def complete(self) -> bool:
        """Whether the answer has said why it ends."""
        return FINISH_REASONS in self._answer

    def fail(self, error_type: ErrorType | str) -> None:
        """The call failed this way, whether or not an exception says so too; this word beats the exception's."""
        self._error = as_error_type(error_type)

    def begin(self) -> None:
        """The call goes out: from here on the request around it waits."""
        counting_here()
        count_step()
        self._request = request_var.get()
        self._wait.__enter__()
        self._began = self._clock()
        try:
            self._span = self._open_span()
            self.capture.begin(self._span, self._content)
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
            internal_error("genai", exc)

    def pause(self) -> None:
        """The caller has a piece of the answer and works on it: that is no waiting."""
        if self._left is None:
            self._left = self._clock()
            self._wait.__exit__(None, None, None)

    def resume(self) -> None:
        """The caller waits for the next piece."""
        if self._left is not None:
            self._left = None
            self._wait.__enter__()

    def forget(self) -> None:
        """It was no call: nothing is counted, and its span is never sent."""
        self.pause()
        count_step(-1)
        self._span = None

    def end(self, error: BaseException | None = None, *, abandoned: bool = False) -> None:
        """The call is over, once. One that was `abandoned` ended when its caller took the last piece."""
        left = self._left
        seconds = (self._clock() if left is None or not abandoned else left) - self._began
        if left is None:
            self._wait.__exit__(None, None, None)
        if error is not None and self._error is None:
            self._error = classify(error)
        try:
            self._record(seconds)
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
            internal_error("genai", exc)

    def __enter__(self) -> Self:
        self._counting.__enter__()
        self.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._counting.__exit__(kind, error, trace)
        self.end(error)

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
        if (now := store()).pushes:
            self._record_for_push(now, seconds)
        self._close_span()

    def _record_for_push(self, now: Store, seconds: float) -> None:
        """The conventions' two histograms."""
        asked = (self._operation, self._provider, self._model)
        now.histogram(GENAI_DURATION, *asked, "" if self._error is None else self._error.value).observe(seconds)
        for kind, number in (("input", self._usage.input), ("output", self._usage.output)):
            if number:
                now.histogram(GENAI_TOKENS, *asked, kind).observe(number)

    def _bill(self, cells: ModelCells) -> None:
        cells.used(self._usage)
        price = price_of(self._provider, self._model)
        if price is None:
            store().cell(UNKNOWN_PRICE, self._provider, self._model).add()
        else:
            cost = price.cost(self._usage)
            _bound.cost(self._provider, self._model).add(cost)
            if self._request is not None:  # where an abandoned stream is collected, another one may be served
                self._request.cost += cost

    def _open_span(self) -> OpenSpan | None:
        """A client span; none where nobody receives spans or the request around is not sampled."""
        spans, request = tracing().spans, request_var.get()
        if spans is None or not self._spans or (request is not None and not request.sampled):
            return None
        attributes = {
            OPERATION: self._operation,
            PROVIDER: self._provider,
            REQUEST_MODEL: self._model,
        }
        around = ambient()
        if CONVERSATION_ID in around:
            attributes[CONVERSATION] = around[CONVERSATION_ID]
        if TENANT in around:
            attributes["sage.tenant"] = around[TENANT]
        return spans.client(name=f"{self._operation} {self._model}", attributes=said(attributes))

    def _close_span(self) -> None:
        if self._span is None:
            return
        error_type = "" if self._error is None else self._error.value
        first: Attributes = {} if self._first_token is None else {TIME_TO_FIRST_CHUNK: self._first_token}
        facts = {**_as_attributes(self._usage), **self._answer, **first, **self.capture.attributes()}
        self._span.end(name=f"{self._operation} {self._model}", attributes=said(facts), error_type=error_type)


def _as_attributes(usage: Usage) -> Attributes:
    """The conventions' attributes: none where nothing is known, the parts only where there are any."""
    if usage == NOTHING:
        return {}
    parts = {
        CACHE_READ_TOKENS: usage.cached_read,
        CACHE_CREATION_TOKENS: usage.cached_write,
        REASONING_TOKENS: usage.reasoning,
    }
    known = {name: number for name, number in parts.items() if number}
    return {INPUT_TOKENS: usage.input, OUTPUT_TOKENS: usage.output, **known}


def _tokens(given: float, before: int) -> int:
    try:
        return max(0, int(float(given)))
    except Exception as exc:  # noqa: BLE001 - the value is the provider's
        internal_error("genai", exc)
        return before


def llm_call(provider: str, model: str, *, operation: str = "chat", content: str | None = None) -> LlmCall:
    """Measure one call to a language model.

    `with llm_call("openai", "gpt-4o") as call: … call.usage(input=…, output=…)`. `operation` is one of the GenAI conventions': chat,
    text_completion, embeddings, generate_content. `content`, which is `off`, `metadata_only`, `no_tool_content` or `full`, is how much of
    what `call.asked(…)` and `call.answered(…)` say goes on the span; by default as much as the context around or the setting says.
    """
    return LlmCall(provider, model, operation=operation, content=content)
