from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import sage_obs
from sage_obs import testing
from sage_obs.conventions import (
    ERRORS,
    INTERNAL_ERRORS,
    LLM_CALL_DURATION,
    LLM_CALLS,
    LLM_COST,
    LLM_ERRORS,
    LLM_TIME_TO_FIRST_TOKEN,
    LLM_TOKENS,
    REQUEST_OVERHEAD,
    REQUESTS,
    UNKNOWN_PRICE,
    ErrorType,
    Outcome,
)
from sage_obs.genai.calls import LlmCall
from sage_obs.genai.requests import experience
from sage_obs.tracing.context import Request, request_var
from tests.support.metrics import children, value

Start = Callable[..., sage_obs.Handle]
GPT = {"provider": "openai", "model": "gpt-4o"}


def test_one_call_is_counted_timed_and_billed_once(instrument: Start) -> None:
    """Calls, duration, first token, tokens and cost all come from one inference."""
    instrument()
    now = iter([10.0, 10.5, 13.0])
    with LlmCall("openai", "gpt-4o", clock=lambda: next(now)) as call:
        call.first_token()
        call.first_token()
        call.usage(input=100, output=10)
        call.usage(input=1000, output=200)
    assert value(LLM_CALLS, **GPT, operation="chat", outcome="success") == 1
    assert value(LLM_CALL_DURATION, suffix="_sum", **GPT) == 3.0
    assert value(LLM_TIME_TO_FIRST_TOKEN, suffix="_sum", **GPT) == 0.5
    assert value(LLM_TOKENS, type="input") == 1000
    assert value(LLM_TOKENS, type="output") == 200
    assert value(LLM_COST, **GPT) == pytest.approx(1000 * 2.5e-6 + 200 * 10e-6)
    assert value(LLM_ERRORS) == value(UNKNOWN_PRICE) == 0


def test_an_exception_is_classified_and_passes_on(instrument: Start) -> None:
    """The call counts as failed, its kind is known, and the caller gets its own exception back."""
    instrument()
    raised = TimeoutError("slow")
    with pytest.raises(TimeoutError) as caught, sage_obs.llm_call("openai", "gpt-4o"):
        raise raised
    assert caught.value is raised
    assert value(LLM_CALLS, outcome="server_error") == 1
    assert value(LLM_ERRORS, error_type="timeout") == 1


def test_what_the_caller_says_of_a_failure_beats_the_exception(instrument: Start) -> None:
    """`fail` names the kind, with or without an exception; what is bounded is there at 0."""
    instrument()
    call = sage_obs.llm_call("p", "m")
    call.fail("rate_limited")
    with pytest.raises(ValueError, match="x"), call:
        raise ValueError("x")
    assert value(LLM_ERRORS, error_type="rate_limited") == 1
    assert value(LLM_CALLS, outcome="rejected") == 1
    assert {labels["error_type"] for labels in children(LLM_ERRORS)} == {kind.value for kind in ErrorType}
    assert {labels["outcome"] for labels in children(LLM_CALLS)} == {outcome.value for outcome in Outcome}


def test_a_model_without_a_price_is_counted_and_costs_nothing(instrument: Start) -> None:
    """An unknown model shows as unknown, not as free."""
    instrument()
    with sage_obs.llm_call("p", "mystery") as call:
        call.usage(input=10**6, output=10**6)
    assert value(UNKNOWN_PRICE, provider="p", model="mystery") == 1
    assert not [labels for labels in children(LLM_COST) if labels["model"] == "mystery"]


@pytest.mark.parametrize(
    "given", [None, float("nan"), float("inf"), 10**400, "many", object()], ids=["none", "nan", "inf", "huge", "text", "object"]
)
def test_usage_that_is_no_number_keeps_what_was_known(instrument: Start, given: Any) -> None:
    """A provider's None does not reach the user's code: the previous number stays, and the error is counted as ours."""
    instrument()
    testing.reraise_internal_errors(on=False)
    with sage_obs.llm_call("openai", "gpt-4o") as call:
        call.usage(input=100, output=10)
        call.usage(input=given, output=20)
    assert value(LLM_TOKENS, type="input") == 100
    assert value(LLM_TOKENS, type="output") == 20
    assert value(INTERNAL_ERRORS, component="genai") == 1


def test_waiting_for_models_and_tools_is_not_overhead() -> None:
    """Overlapping calls count once, a tool counts like a call, and the request knows the sum."""
    now = [0.0]
    request = Request(request_id="r", trace_id="a" * 32, span_id="b" * 16, sampled=False, clock=lambda: now[0])
    request_var.set(request)

    async def main() -> None:
        first, second = asyncio.Event(), asyncio.Event()

        async def model() -> None:
            async with sage_obs.llm_call("p", "m"):
                await first.wait()

        @sage_obs.tool("search")
        async def search() -> str:
            await second.wait()
            return "found"

        tasks = [asyncio.create_task(model()), asyncio.create_task(search())]
        await asyncio.sleep(0)
        now[0] = 2.0
        first.set()
        await tasks[0]
        now[0] = 5.0
        second.set()
        assert await tasks[1] == "found"
        now[0] = 9.0

    asyncio.run(main())
    request_var.set(None)
    assert request.waiting.seconds() == 5.0


def test_what_a_call_costs_is_on_the_bill_of_the_request_that_made_it() -> None:
    """An abandoned stream may be collected while another request is served."""
    one, other = (Request(request_id=name, trace_id="a" * 32, span_id="b" * 16, sampled=False) for name in ("1", "2"))
    request_var.set(one)
    call = LlmCall("openai", "gpt-4o")
    call.begin()
    call.usage(input=1_000_000)
    request_var.set(other)
    call.end()
    request_var.set(None)
    assert (one.cost, other.cost) == (2.5, 0.0)


def test_a_tool_decorates_plain_functions_and_keeps_their_face() -> None:
    """The decorated function has its name and its result; outside a request nothing is measured."""

    @sage_obs.tool("double")
    def double(number: int) -> int:
        """Twice."""
        return 2 * number

    assert double(4) == 8
    assert (double.__name__, double.__doc__) == ("double", "Twice.")


def test_everything_can_be_called_before_instrument() -> None:
    """The face is there without the layer, and records into nothing."""
    sage_obs.uninstrument()
    with sage_obs.context(tenant="t"), sage_obs.tool("x"), sage_obs.llm_call("p", "m") as call:
        call.first_token()
        call.usage(input=1, output=1)
        call.fail("timeout")
    sage_obs.record_error("timeout")
    assert sage_obs.flush(timeout=0.1)
    assert sage_obs.agent("a")(lambda: 3)() == 3


def test_an_agent_function_is_a_request(instrument: Start) -> None:
    """Each call counts under its name; a call inside another belongs to it."""
    instrument()

    @sage_obs.agent("planner")
    def plan(fail: bool) -> str:  # noqa: FBT001 - two cases
        assert sage_obs.current().request_id.startswith("req-")
        if fail:
            raise TimeoutError
        return "done"

    @sage_obs.agent("outer")
    async def outer() -> str:
        return plan(fail=False)

    assert plan(fail=False) == "done"
    with pytest.raises(TimeoutError):
        plan(fail=True)
    assert asyncio.run(outer()) == "done"
    assert value(REQUESTS, operation="planner", outcome="success") == 1
    assert value(REQUESTS, operation="planner", outcome="server_error") == 1
    assert value(REQUESTS, operation="outer", outcome="success") == 1
    assert value(ERRORS, error_type="timeout") == 1
    assert value(REQUEST_OVERHEAD, suffix="_count", operation="outer") == 1


@pytest.mark.parametrize(
    ("outcome", "overhead", "expected"),
    [
        (Outcome.SUCCESS, 0.1, "satisfied"),
        (Outcome.SUCCESS, 0.1001, "tolerating"),
        (Outcome.CLIENT_ERROR, 0.4, "tolerating"),
        (Outcome.SUCCESS, 0.4001, "frustrated"),
        (Outcome.SERVER_ERROR, 0.0, "frustrated"),
    ],
)
def test_experience_follows_the_objective(outcome: Outcome, overhead: float, expected: str) -> None:
    """Up to the objective satisfies, up to four times of it is tolerated, more or a failure frustrates."""
    assert experience(outcome, overhead, objective=0.1) == expected
