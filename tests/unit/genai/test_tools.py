from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace

import sage_obs
from sage_obs import testing
from sage_obs.conventions import Outcome
from sage_obs.genai.toolcalls import ToolCall
from sage_obs.testing import Captured

Use = Callable[[BaseException | None], Any]


@pytest.fixture
def telemetry() -> Iterator[Captured]:
    """What is recorded, with errors of our own raised."""
    testing.reraise_internal_errors(on=True)
    with testing.capture() as captured:
        yield captured
    testing.reraise_internal_errors(on=False)


def _block(raised: BaseException | None) -> None:
    with sage_obs.tool("search"):
        if raised:
            raise raised


def _async_block(raised: BaseException | None) -> None:
    async def main() -> None:
        async with sage_obs.tool("search"):
            await asyncio.sleep(0)
            if raised:
                raise raised

    asyncio.run(main())


@sage_obs.tool("search")
def _function(raised: BaseException | None) -> str:
    if raised:
        raise raised
    return "found"


@sage_obs.tool("search")
async def _coroutine(raised: BaseException | None) -> str:
    await asyncio.sleep(0)
    if raised:
        raise raised
    return "found"


@sage_obs.tool("search")
def _generator(raised: BaseException | None) -> Iterator[int]:
    yield 1
    yield 2
    if raised:
        raise raised


@sage_obs.tool("search")
async def _async_generator(raised: BaseException | None) -> AsyncIterator[int]:
    yield 1
    await asyncio.sleep(0)
    yield 2
    if raised:
        raise raised


async def _collect(items: AsyncIterator[int]) -> list[int]:
    return [item async for item in items]


USES: dict[str, tuple[Use, Any]] = {
    "block": (_block, None),
    "async block": (_async_block, None),
    "function": (_function, "found"),
    "coroutine": (lambda raised: asyncio.run(_coroutine(raised)), "found"),
    "generator": (lambda raised: list(_generator(raised)), [1, 2]),
    "async generator": (lambda raised: asyncio.run(_collect(_async_generator(raised))), [1, 2]),
}
EVERY = pytest.mark.parametrize("kind", sorted(USES))


@EVERY
def test_a_call_is_counted_timed_and_a_span(telemetry: Captured, kind: str) -> None:
    """One call is one count, one duration and one span, however it is made; its result is the function's."""
    use, result = USES[kind]
    assert use(None) == result
    assert telemetry.value("sage_tool_calls_total", tool="search", outcome="success") == 1
    assert telemetry.value("sage_tool_calls_total") == 1
    assert telemetry.value("sage_tool_duration_seconds_count", tool="search") == 1
    span = telemetry.span("execute_tool search")
    assert (span.kind, span.error_type) == ("internal", "")
    assert span.attributes == {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}
    assert not trace.get_current_span().get_span_context().is_valid


@EVERY
@pytest.mark.parametrize(
    ("raised", "outcome", "error_type"),
    [
        (KeyError("x"), "server_error", "tool_error"),
        (TimeoutError(), "server_error", "timeout"),
        (asyncio.CancelledError(), "cancelled", ""),
    ],
    ids=["any", "timeout", "cancelled"],
)
def test_a_failed_call_is_counted_as_what_it_was(
    telemetry: Captured, kind: str, raised: BaseException, outcome: str, error_type: str
) -> None:
    """The exception passes through untouched; the count and the span say what it was."""
    with pytest.raises(type(raised)) as caught:
        USES[kind][0](raised)
    assert caught.value is raised or isinstance(raised, asyncio.CancelledError)
    assert telemetry.value("sage_tool_calls_total", outcome=outcome) == telemetry.value("sage_tool_calls_total") == 1
    assert telemetry.span("execute_tool search").error_type == error_type


def test_every_outcome_is_there_from_the_first_call_on(telemetry: Captured) -> None:
    """Or the first errors would be lost to a rate."""
    _function(None)
    for outcome in Outcome:
        assert telemetry.value("sage_tool_calls_total", outcome=outcome.value) == float(outcome is Outcome.SUCCESS)


def test_a_generator_nobody_goes_on_with_was_cancelled(telemetry: Captured) -> None:
    """Closed early or abandoned it is counted, and its span ends without an error; one that never began is nothing."""
    closed = _generator(None)
    next(closed)
    closed.close()  # type: ignore[attr-defined]
    next(_generator(None))
    _generator(None)
    gc.collect()
    assert telemetry.value("sage_tool_calls_total", outcome="cancelled") == telemetry.value("sage_tool_calls_total") == 2
    assert [span.error_type for span in telemetry.spans] == ["", ""]


def test_no_span_of_a_tool_is_current_between_the_steps_of_its_generator(telemetry: Captured) -> None:
    """Inside a step it is, and what the function calls there is nested; whoever iterates has its own."""
    inside: list[bool] = []

    @sage_obs.tool("nesting")
    def nesting() -> Iterator[int]:
        for number in range(2):
            inside.append(trace.get_current_span().get_span_context().is_valid)
            _function(None)
            yield number

    for _ in nesting():
        assert not trace.get_current_span().get_span_context().is_valid
    assert inside == [True, True]
    outer = telemetry.span("execute_tool nesting")
    assert {span.parent_id for span in telemetry.spans if span.name == "execute_tool search"} == {outer.span_id}


def test_what_a_function_calls_is_nested_in_its_span(telemetry: Captured) -> None:
    """A tool that uses another one, sync or async, is the parent of its span."""

    @sage_obs.tool("outer")
    def outer() -> None:
        _function(None)

    @sage_obs.tool("aouter")
    async def aouter() -> None:
        await _coroutine(None)

    outer()
    asyncio.run(aouter())
    parents = [span.parent_id for span in telemetry.spans if span.name == "execute_tool search"]
    assert parents == [telemetry.span("execute_tool outer").span_id, telemetry.span("execute_tool aouter").span_id]


def test_the_duration_is_the_time_inside(telemetry: Captured) -> None:
    """Of several steps it is their sum, without what is between them."""
    now = iter([10.0, 11.0, 50.0, 53.0])
    call = ToolCall("steps", attach=False, clock=lambda: next(now))
    for _ in range(2):
        call.enter()
        call.leave()
    call.finish(None)
    assert telemetry.value("sage_tool_duration_seconds_sum", tool="steps") == 4.0


def test_a_block_leaves_no_span_behind_in_a_generator(telemetry: Captured) -> None:
    """A block may be left half way by the generator it is in: its span is never the current one."""

    def half_way() -> Iterator[int]:
        with sage_obs.tool("search"):
            yield 1

    items = half_way()
    next(items)
    assert not trace.get_current_span().get_span_context().is_valid
    assert list(items) == []
    assert telemetry.value("sage_tool_calls_total", outcome="success") == 1


def test_one_tool_shared_by_tasks_counts_each_call_for_itself(telemetry: Captured) -> None:
    """Overlapping blocks of one instance in tasks of one request end as their own task ends them."""
    shared = sage_obs.tool("shared")

    @sage_obs.agent("a")
    async def act() -> None:
        gates = [asyncio.Event(), asyncio.Event()]

        async def use(number: int) -> None:
            with shared:
                await gates[number].wait()
                if number == 0:
                    raise TimeoutError

        tasks = [asyncio.create_task(use(number)) for number in range(2)]  # the first to enter is the first to leave
        await asyncio.sleep(0)
        gates[0].set()
        with pytest.raises(TimeoutError):
            await tasks[0]
        assert telemetry.value("sage_tool_calls_total", outcome="server_error") == 1
        assert telemetry.value("sage_tool_calls_total") == 1
        assert [one.where for one in shared._open] == [tasks[1]]
        gates[1].set()
        await tasks[1]

    asyncio.run(act())
    assert telemetry.value("sage_tool_calls_total", outcome="success") == 1
    assert [span.error_type for span in telemetry.spans if span.name == "execute_tool shared"] == ["timeout", ""]


def test_the_steps_of_a_request_are_its_models_and_tools(telemetry: Captured) -> None:
    """Each call is a step, a generator is one; a request without any is not among them, nor is what happens outside."""

    @sage_obs.agent("busy")
    def busy() -> None:
        list(_generator(None))
        _function(None)
        with sage_obs.llm_call("p", "m"):
            _function(None)

    sage_obs.agent("idle")(lambda: None)()
    assert telemetry.value("sage_agent_steps_count") == 0
    _function(None)
    busy()
    assert telemetry.value("sage_agent_steps_count", agent_id="agent-test") == 1
    assert telemetry.value("sage_agent_steps_sum") == 4


def test_an_agent_is_a_span_and_what_it_calls_is_under_it(telemetry: Captured) -> None:
    """By itself it is the root of a trace; in another one it is a part, sync, async or a generator."""

    @sage_obs.agent("writer")
    def writer() -> Iterator[str]:
        with sage_obs.llm_call("p", "m"):
            yield "te"
        with sage_obs.tool("late"):
            yield "xt"

    @sage_obs.agent("planner")
    async def planner() -> str:
        await _coroutine(None)
        assert sage_obs.current().span_id
        return "".join(writer())

    assert asyncio.run(planner()) == "text"
    root, part = telemetry.span("invoke_agent planner"), telemetry.span("invoke_agent writer")
    assert (root.kind, root.parent_id, part.kind, part.parent_id) == ("internal", "", "internal", root.span_id)
    assert root.attributes == {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "planner"}
    assert telemetry.span("execute_tool search").parent_id == root.span_id
    assert telemetry.span("chat m").parent_id == telemetry.span("execute_tool late").parent_id == part.span_id
    assert telemetry.value("sage_agent_requests_total", operation="planner") == telemetry.value("sage_agent_requests_total") == 1
    assert not trace.get_current_span().get_span_context().is_valid


def test_a_failed_part_says_so_on_its_span(telemetry: Captured) -> None:
    """An agent inside another fails with its kind of error, while the outer one may have handled it."""

    @sage_obs.agent("inner")
    def inner() -> None:
        raise TimeoutError

    @sage_obs.agent("outer")
    def outer() -> None:
        with pytest.raises(TimeoutError):
            inner()

    outer()
    assert telemetry.span("invoke_agent inner").error_type == "timeout"
    assert telemetry.span("invoke_agent outer").error_type == ""


def test_who_it_is_for_is_on_the_spans(telemetry: Captured) -> None:
    """Tenant and conversation of the context around are attributes of tools and agents."""
    with sage_obs.context(tenant="acme", conversation_id="c1"):
        _function(None)
    attributes = telemetry.span("execute_tool search").attributes
    assert (attributes["sage.tenant"], attributes["gen_ai.conversation.id"]) == ("acme", "c1")


def test_an_unsampled_request_has_no_spans_of_tools(telemetry: Captured) -> None:
    """They are counted all the same."""
    from tests.support.asgi import call

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive
        _function(None)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    call(sage_obs.instrument_app(app), "GET", "/", traceparent=f"00-{'a' * 32}-{'b' * 16}-00")
    assert telemetry.value("sage_tool_calls_total", outcome="success") == 1
    assert telemetry.spans == ()
