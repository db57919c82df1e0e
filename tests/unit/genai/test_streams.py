from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import sage_obs
from sage_obs import testing
from sage_obs.conventions import INTERNAL_ERRORS, LLM_CALL_DURATION, LLM_CALLS, STREAMS_ABANDONED
from sage_obs.genai.calls import LlmCall
from sage_obs.genai.nesting import Counting, counted
from sage_obs.genai.streams import AsyncSteps, Steps, Watch
from sage_obs.tracing.context import request_var
from tests.support.metrics import value

Start = Callable[..., sage_obs.Handle]


class _Reader:
    """Shows what is not "hidden" and fails at "broken"."""

    def whole(self, call: LlmCall, answer: Any) -> None:
        call.response(finish_reasons=[answer])

    def piece(self, call: LlmCall, item: Any) -> bool:
        if item == "broken":
            raise ValueError(item)
        if item == "last":
            call.response(finish_reasons=["stop"])
        return bool(item != "hidden")


class _Owner:
    """Something that can be dropped."""


def _watch(clock: Callable[[], float] = lambda: 0.0) -> Watch:
    return Watch(LlmCall("p", "m", clock=clock), _Reader(), "test")


def test_only_the_first_end_counts(instrument: Start) -> None:
    """Read to its end, closed, dropped and failed afterwards, it is one call that succeeded."""
    instrument()
    watch, owner = _watch(), _Owner()
    watch.owned_by(owner)
    assert list(Steps(iter(["one", "hidden", "last"]), watch)) == ["one", "last"]
    watch.closed(cut=True)
    watch.end(ValueError("late"))
    del owner
    gc.collect()
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome="success") == 1
    assert value(STREAMS_ABANDONED) == 0


def test_an_abandoned_stream_lasted_until_its_last_item(instrument: Start) -> None:
    """When the collector comes says nothing of the model; a closed stream lasted until it was closed."""
    instrument()
    now = [0.0]
    for close in (False, True):
        watch, owner = _watch(lambda: now[0]), _Owner()
        watch.owned_by(owner)
        steps = Steps(iter(["one", "two"]), watch)
        now[0] += 2.0
        next(steps)
        now[0] += 10.0
        if close:
            watch.closed(cut=True)
        del owner
    assert value(LLM_CALL_DURATION, suffix="_sum") == 2.0 + 12.0
    assert value(LLM_CALLS, outcome="cancelled") == 2
    assert value(STREAMS_ABANDONED, component="test") == 1


def test_streams_that_are_open_when_the_process_ends_are_left_alone(instrument: Start) -> None:
    """Nothing runs for them at exit, where the layer has stopped already, and nothing is kept alive for them."""
    instrument()
    watch, owner = _watch(), _Owner()
    before = _at_exit()
    watch.owned_by(owner)
    assert _at_exit() == before
    kept = weakref.ref(owner)
    del owner
    assert kept() is None
    assert watch.over


def _at_exit() -> int:
    """How many finalizers would run at exit."""
    registry: dict[object, Any] = vars(weakref.finalize)["_registry"]
    return len([info for info in registry.values() if info.atexit])


def test_what_cannot_be_read_is_shown_and_counted_as_ours(instrument: Start) -> None:
    """An item that breaks the reader reaches the caller all the same."""
    instrument(log_output="/dev/null")
    testing.reraise_internal_errors(on=False)
    assert list(Steps(iter(["one", "broken", "last"]), _watch())) == ["one", "broken", "last"]
    assert value(INTERNAL_ERRORS, component="test") == 1
    assert value(LLM_CALLS, outcome="success") == 1


def test_an_error_after_a_complete_answer_is_about_what_was_made_of_it(instrument: Start) -> None:
    """A parser that fails does not make a failed call of one that was answered; a timeout always does."""
    instrument()
    for error in (ValueError("not what I asked for"), TimeoutError()):
        watch = _watch()
        watch.whole("stop")
        watch.raised(error)
    assert value(LLM_CALLS, outcome="success") == value(LLM_CALLS, outcome="server_error") == 1


def test_a_call_that_was_none_leaves_nothing_behind(instrument: Start) -> None:
    """It is not counted, neither then nor later, and the request around it no longer waits."""
    instrument()

    @sage_obs.agent("cached")
    def cached() -> None:
        watch = _watch()
        watch.forget()
        request = request_var.get()
        assert request is not None
        waited = request.waiting.seconds()
        assert request.waiting.seconds() == waited
        watch.end()

    cached()
    assert value(LLM_CALLS) == 0


def test_steps_have_the_other_methods_of_the_iterator_inside() -> None:
    """What is no step is the library's: a generator can be closed, whoever iterates it."""
    closed = []

    def pieces() -> Iterator[str]:
        try:
            yield "one"
        finally:
            closed.append("sync")

    async def async_pieces() -> AsyncIterator[str]:
        try:
            yield "one"
        finally:
            closed.append("async")

    steps = Steps(pieces(), _watch())
    assert next(steps) == "one"
    steps.close()

    async def main() -> None:
        steps = AsyncSteps(async_pieces(), _watch())
        assert await anext(steps) == "one"
        await steps.aclose()

    asyncio.run(main())
    assert closed == ["sync", "async"]


def test_a_cancelled_step_ends_the_call(instrument: Start) -> None:
    """A task that is cancelled while it waits for the next item has cancelled the call, and the cancellation goes on."""
    instrument()

    async def never() -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""

    async def main() -> None:
        task = asyncio.create_task(anext(AsyncSteps(never(), _watch())))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert value(LLM_CALLS) == value(LLM_CALLS, outcome="cancelled") == 1


def test_the_outermost_counts_for_as_long_as_it_is_there() -> None:
    """What is called inside is counted by it, in tasks too; a task that goes on afterwards counts for itself again."""
    seen = []

    async def task(gone: asyncio.Event) -> None:
        seen.append(counted())
        await gone.wait()
        seen.append(counted())

    async def main() -> None:
        gone = asyncio.Event()
        with Counting():
            with Counting():
                running = asyncio.create_task(task(gone))
                await asyncio.sleep(0)
            seen.append(counted())
        seen.append(counted())
        gone.set()
        await running

    asyncio.run(main())
    assert seen == [True, True, False, False]
    assert not counted()


def test_a_generator_closed_in_another_context_does_not_raise() -> None:
    """It is set back by value, and only where it was set."""

    async def pieces() -> AsyncIterator[int]:
        with Counting():
            yield 1

    async def main() -> None:
        left = pieces()
        await asyncio.create_task(anext(left))  # type: ignore[arg-type]
        assert not counted()
        await left.aclose()  # type: ignore[attr-defined]
        assert not counted()

    asyncio.run(main())
