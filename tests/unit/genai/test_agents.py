from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import AsyncIterator, Callable, Generator, Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider

import sage_obs
from sage_obs.conventions import ERRORS, REQUESTS, REQUESTS_IN_FLIGHT
from sage_obs.tracing.context import Request, request_var
from sage_obs.tracing.otel import OtelSpans
from tests.support.metrics import value

Start = Callable[..., sage_obs.Handle]


class StatusError(Exception):
    """What a client library raises for an answer with an error status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status_code = status


class UnclassifiableError(Exception):
    """Has properties that raise."""

    @property
    def code(self) -> str:
        """Refuse."""
        raise RuntimeError("no code")


@pytest.mark.parametrize(
    ("raised", "outcome", "kind"),
    [
        (StatusError(401), "server_error", "auth"),
        (StatusError(429), "server_error", "rate_limited"),
        (asyncio.CancelledError(), "cancelled", "cancelled"),
        (UnclassifiableError(), "server_error", "internal"),
    ],
    ids=["401", "429", "cancelled", "unclassifiable"],
)
def test_an_agent_that_lets_an_exception_out_has_failed_its_caller(
    instrument: Start, raised: BaseException, outcome: str, kind: str
) -> None:
    """An upstream's refusal is the agent's failure, as it is over HTTP, and nothing stays in flight."""
    instrument()

    @sage_obs.agent("a")
    def act() -> None:
        raise raised

    with pytest.raises(type(raised)) as caught:
        act()
    assert caught.value is raised
    assert value(REQUESTS, outcome=outcome) == value(ERRORS, error_type=kind) == 1
    assert value(REQUESTS_IN_FLIGHT) == 0


@sage_obs.agent("count")
def count(limit: int) -> Generator[str, str, str]:
    """Yield its request id and what was sent in; fail past 3."""
    sent = ""
    for number in range(limit):
        if number == 3:
            raise TimeoutError
        sent = yield sage_obs.current().request_id + (sent or "")
    return sent


@sage_obs.agent("acount")
async def acount(limit: int) -> AsyncIterator[str]:
    """The same, without sending."""
    for number in range(limit):
        if number == 3:
            raise TimeoutError
        await asyncio.sleep(0)
        yield sage_obs.current().request_id


async def _collect(items: AsyncIterator[str], *, at_most: int = 10) -> list[str]:
    found = []
    async for item in items:
        assert sage_obs.current().request_id == ""
        found.append(item)
        if len(found) == at_most:
            break
    return found


def test_a_generator_is_a_request_until_its_end(instrument: Start) -> None:
    """All steps have the request's id, those who iterate do not, and values go in and come out as ever."""
    instrument()
    items = count(2)
    first = next(items)
    assert first.startswith("req-")
    assert sage_obs.current().request_id == ""
    assert (value(REQUESTS_IN_FLIGHT), value(REQUESTS)) == (1, 0)
    assert items.send("-sent") == first + "-sent"
    with pytest.raises(StopIteration) as end:
        items.send("result")
    assert end.value.value == "result"
    assert value(REQUESTS, operation="count", outcome="success") == 1
    assert value(REQUESTS_IN_FLIGHT) == 0
    assert inspect.isgeneratorfunction(count)
    assert inspect.isasyncgenfunction(acount)


def test_an_async_generator_is_a_request_until_its_end(instrument: Start) -> None:
    """All steps have the same id, which ends with the last one."""
    instrument()
    assert len(set(asyncio.run(_collect(acount(3))))) == 1
    assert value(REQUESTS, operation="acount", outcome="success") == 1
    assert value(REQUESTS_IN_FLIGHT) == 0


def test_an_error_while_iterating_counts(instrument: Start) -> None:
    """The step that raises ends the request as failed, sync or async."""
    instrument()
    with pytest.raises(TimeoutError):
        list(count(5))
    with pytest.raises(TimeoutError):
        asyncio.run(_collect(acount(5)))
    assert value(REQUESTS, outcome="server_error") == value(ERRORS, error_type="timeout") == 2
    assert value(REQUESTS_IN_FLIGHT) == 0


def test_a_generator_nobody_goes_on_with_was_cancelled(instrument: Start) -> None:
    """Closed early or abandoned, sync or async, it is counted and not in flight; one that never began is nothing."""
    instrument()
    closed = count(3)
    next(closed)
    closed.close()
    next(count(3))
    asyncio.run(_collect(acount(3), at_most=1))
    count(3)
    gc.collect()
    assert value(REQUESTS, outcome="cancelled") == value(REQUESTS) == 3
    assert value(REQUESTS_IN_FLIGHT) == 0


def test_what_is_thrown_in_reaches_the_function(instrument: Start) -> None:
    """A generator that handles an exception goes on with it handled."""
    instrument()

    @sage_obs.agent("catching")
    def catching() -> Iterator[str]:
        try:
            yield "one"
        except KeyError:
            yield "caught"

    items = catching()
    next(items)
    assert isinstance(items, Generator)
    assert items.throw(KeyError("x")) == "caught"
    assert not list(items)
    assert value(REQUESTS, outcome="success") == 1


def test_no_span_stays_current_between_the_steps_of_a_generator() -> None:
    """A span that is left and entered again is current only inside."""
    spans = OtelSpans(TracerProvider(shutdown_on_exit=False))
    span = spans.server(name="x", ids=("ab" * 16, "cd" * 8), parent=None)
    span.leave()
    assert spans.current() is None
    span.enter()
    assert spans.current() == span.ids
    span.leave()
    span.leave()
    assert spans.current() is None


def test_steps_of_a_tool_are_waits_and_what_is_between_them_is_not() -> None:
    """Of a generator the time inside its steps is waiting, and no wait is left open by one that is closed."""
    now = [0.0]
    request_var.set(Request(request_id="r", trace_id="a" * 32, span_id="b" * 16, sampled=False, clock=lambda: now[0]))

    @sage_obs.tool("search")
    def search() -> Iterator[int]:
        while True:
            now[0] += 2.0
            yield 1

    items = search()
    next(items)
    now[0] += 5.0
    next(items)
    assert isinstance(items, Generator)
    items.close()
    now[0] += 5.0
    request = request_var.get()
    request_var.set(None)
    assert request is not None
    assert request.waiting.seconds() == 4.0


def test_one_tool_ends_the_wait_of_the_request_that_leaves_it() -> None:
    """Two requests inside one instance end their own waits, in whatever order, and a wait ended elsewhere ends all the same."""
    now, shared = [0.0], sage_obs.tool("shared")
    first, second = (
        Request(request_id=name, trace_id="a" * 32, span_id="b" * 16, sampled=False, clock=lambda: now[0]) for name in ("1", "2")
    )
    for request in (first, second):
        request_var.set(request)
        shared.__enter__()
    now[0] = 1.0
    request_var.set(first)
    shared.__exit__(None, None, None)
    now[0] = 3.0
    request_var.set(None)
    shared.__exit__(None, None, None)
    now[0] = 9.0
    assert (first.waiting.seconds(), second.waiting.seconds()) == (1.0, 3.0)


def test_an_agent_in_a_task_that_outlives_its_request_is_a_request(instrument: Start) -> None:
    """Once the request that started the task has ended, what the task does counts by itself."""
    instrument()

    @sage_obs.agent("later")
    async def later() -> str:
        return sage_obs.current().request_id

    async def main() -> tuple[str, str]:
        gate = asyncio.Event()

        async def follow() -> str:
            await gate.wait()
            return await later()

        @sage_obs.agent("first")
        async def first() -> tuple[str, asyncio.Task[str]]:
            return sage_obs.current().request_id, asyncio.create_task(follow())

        ended, task = await first()
        gate.set()
        return ended, await task

    ended, own = asyncio.run(main())
    assert own not in {ended, ""}
    assert value(REQUESTS, operation="later", outcome="success") == 1
