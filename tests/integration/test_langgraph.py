"""Graphs, agents and tools of the real libraries, over models that are theirs alone and over a client that has an integration."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

os.environ.setdefault("LANGSMITH_TRACING", "false")  # it sends what it traces to its maker
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    fakes: Any = importlib.import_module("langchain_core.language_models.fake_chat_models")
    messages: Any = importlib.import_module("langchain_core.messages")
    outputs: Any = importlib.import_module("langchain_core.outputs")
    tools: Any = importlib.import_module("langchain_core.tools")
    graphs: Any = importlib.import_module("langgraph.graph")
    kinds: Any = importlib.import_module("langgraph.types")
    savers: Any = importlib.import_module("langgraph.checkpoint.memory")
    prebuilt: Any = importlib.import_module("langgraph.prebuilt")

import sage_obs
from sage_obs.conventions import (
    INTERNAL_ERRORS,
    LLM_CALLS,
    LLM_ERRORS,
    LLM_TIME_TO_FIRST_TOKEN,
    LLM_TOKENS,
    REQUEST_OVERHEAD,
    REQUESTS,
    STEPS,
    TOOL_CALLS,
)
from sage_obs.semconv import TOOL_ARGUMENTS, TOOL_RESULT
from sage_obs.testing import capture
from sage_obs.tracing.context import ambient_var, request_var

pytestmark = pytest.mark.filterwarnings("ignore")
"""What it warns of is its own business with pydantic and asyncio."""
USAGE = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120, "input_token_details": {"cache_read": 40}}


class Model(fakes.GenericFakeChatModel):  # type: ignore[misc]
    """A model of no library that has an integration."""

    model: str = "tiny"

    def _get_ls_params(self, stop: Any = None, **_: Any) -> dict[str, Any]:
        del stop
        return {"ls_provider": "mistralai", "ls_model_name": self.model, "ls_model_type": "chat"}

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        yield from super()._stream(*args, **kwargs)
        yield outputs.ChatGenerationChunk(message=messages.AIMessageChunk("", usage_metadata=USAGE))


class Failing(Model):
    """One that does not answer in time."""

    def _generate(self, *_: Any, **__: Any) -> Any:
        raise TimeoutError


def _said(*answers: Any) -> Model:
    return Model(messages=iter(answers))


def _answer(text: str = "hello", **more: Any) -> Any:
    return messages.AIMessage(text, usage_metadata=USAGE, response_metadata={"model_name": "tiny-1", "finish_reason": "stop"}, **more)


def _asking(name: str) -> Any:
    return _answer("", tool_calls=[{"name": name, "args": {"query": "q"}, "id": "call-1"}])


@tools.tool  # type: ignore[untyped-decorator]
def search(query: str) -> str:
    """Search."""
    if query == "broken":
        raise ValueError(query)
    return f"found {query}"


def _graph(model: Any) -> Any:
    """An agent that asks the model, uses its tools, and asks again."""
    builder = graphs.StateGraph(graphs.MessagesState)
    builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_node("tools", prebuilt.ToolNode([search]))
    builder.add_edge(graphs.START, "model")
    builder.add_conditional_edges("model", prebuilt.tools_condition)
    builder.add_edge("tools", "model")
    return builder.compile(name="helper")


ASK = {"messages": [("user", "hi")]}


async def _all(stream: Any) -> list[Any]:
    return [item async for item in stream]


RUNS: dict[str, Callable[[Any], Any]] = {
    "invoke": lambda graph: graph.invoke(ASK),
    "stream": lambda graph: list(graph.stream(ASK)),
    "ainvoke": lambda graph: asyncio.run(graph.ainvoke(ASK)),
    "astream": lambda graph: asyncio.run(_all(graph.astream(ASK))),
}


@pytest.mark.parametrize("run", RUNS)
def test_a_run_of_a_graph_is_an_agent_at_work(run: str) -> None:
    """However it is run: one request with its model calls and tools, each counted once, in one trace, and nothing left behind."""
    with capture() as seen:
        RUNS[run](_graph(_said(_asking("search"), _answer())))
        assert (request_var.get(), ambient_var.get()) == (None, None)
    assert seen.value(REQUESTS.name, operation="helper", outcome="success") == seen.value(REQUESTS.name) == 1
    assert seen.value(LLM_CALLS.name, provider="mistral_ai", model="tiny", outcome="success") == seen.value(LLM_CALLS.name) == 2
    assert seen.value(TOOL_CALLS.name, tool="search", outcome="success") == seen.value(TOOL_CALLS.name) == 1
    assert seen.value(f"{STEPS.name}_sum") == 3
    assert seen.value(f"{REQUEST_OVERHEAD.name}_count", operation="helper") == 1
    agent = seen.span("invoke_agent helper")
    inner = [span for span in seen.spans if span.name in {"execute_tool search", "chat tiny"}]
    assert len(inner) == 3
    assert {(span.trace_id, span.parent_id) for span in inner} == {(agent.trace_id, agent.span_id)}
    assert agent.attributes["gen_ai.agent.name"] == "helper"
    assert seen.value(INTERNAL_ERRORS.name) == 0


def test_inside_a_request_a_graph_is_part_of_it() -> None:
    """A graph in a graph, in somebody's request: spans inside one another, and one request; the model is no part of its overhead."""
    inner = _graph(_said(_answer()))
    builder = graphs.StateGraph(graphs.MessagesState)
    builder.add_node("inner", inner.invoke)
    builder.add_edge(graphs.START, "inner")
    outer = builder.compile(name="outer")
    with capture() as seen:
        sage_obs.agent("request")(outer.invoke)(ASK)
    assert seen.value(REQUESTS.name, operation="request") == seen.value(REQUESTS.name) == 1
    assert seen.span("invoke_agent helper").parent_id == seen.span("invoke_agent outer").span_id
    assert seen.span("invoke_agent outer").parent_id == seen.span("invoke_agent request").span_id


def test_a_graph_that_nobody_runs_to_its_end_was_cancelled() -> None:
    """Closed early, its span and its request end."""
    with capture() as seen:
        stream = _graph(_said(_asking("search"), _answer())).stream(ASK)
        next(stream)
        assert request_var.get() is None
        stream.close()
    assert seen.value(REQUESTS.name, operation="helper", outcome="cancelled") == seen.value(REQUESTS.name) == 1
    assert seen.span("invoke_agent helper")


def test_what_fails_is_counted_as_failed_where_it_fails() -> None:
    """A tool's exception fails the tool and the run that it comes out of."""
    builder = graphs.StateGraph(graphs.MessagesState)
    builder.add_node("tool", lambda _: search.invoke({"query": "broken"}))
    builder.add_edge(graphs.START, "tool")
    with capture() as seen, pytest.raises(ValueError, match="broken"):
        builder.compile(name="helper").invoke(ASK)
    assert seen.value(TOOL_CALLS.name, tool="search", outcome="server_error") == 1
    assert seen.value(REQUESTS.name, operation="helper", outcome="server_error") == 1


def test_a_graph_that_asks_a_person_has_not_failed() -> None:
    """The tool that stops to ask was called off; the run ends well, and so does the one that goes on."""

    @tools.tool  # type: ignore[untyped-decorator]
    def ask(query: str) -> str:
        """Ask."""
        return str(kinds.interrupt(query))

    builder = graphs.StateGraph(graphs.MessagesState)
    builder.add_node("ask", lambda _: {"messages": [("ai", ask.invoke({"query": "may I?"}))]})
    builder.add_edge(graphs.START, "ask")
    graph = builder.compile(name="helper", checkpointer=savers.InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    with capture() as seen:
        graph.invoke(ASK, config)
        graph.invoke(kinds.Command(resume="yes"), config)
    assert seen.value(TOOL_CALLS.name, tool="ask", outcome="cancelled") == seen.value(TOOL_CALLS.name, outcome="success") == 1
    assert seen.value(REQUESTS.name, operation="helper", outcome="success") == seen.value(REQUESTS.name) == 2


def test_a_tool_made_of_a_tool_is_one() -> None:
    """What is a `sage_obs.tool` already, and what calls an MCP server, is not counted again under the same name."""
    with capture() as seen:
        made = tools.tool("lookup", description="Look up.")(sage_obs.tool("lookup")(lambda query: query))
        assert made.invoke({"query": "q"}) == "q"
        assert asyncio.run(made.ainvoke({"query": "q"})) == "q"
    assert seen.value(TOOL_CALLS.name, tool="lookup", outcome="success") == seen.value(TOOL_CALLS.name) == 2
    assert len([span for span in seen.spans if span.name == "execute_tool lookup"]) == 2


def test_a_model_without_an_integration_is_counted_with_its_usage() -> None:
    """Invoked, in batches and streamed, sync and async: each inference is one call with provider, model and tokens."""

    async def work() -> None:
        assert (await _said(_answer()).ainvoke("hi")).content == "hello"
        assert "".join([chunk.content async for chunk in _said(_answer("a b")).astream("hi")]) == "a b"

    with capture() as seen:
        assert _said(_answer()).invoke("hi").content == "hello"
        assert len(_said(_answer(), _answer()).batch(["hi", "hi"])) == 2
        assert "".join(chunk.content for chunk in _said(_answer("a b")).stream("hi")) == "a b"
        asyncio.run(work())
    assert (
        seen.value(LLM_CALLS.name, provider="mistral_ai", model="tiny", operation="chat", outcome="success")
        == seen.value(LLM_CALLS.name)
        == 6
    )
    assert seen.value(LLM_TOKENS.name, type="input") == 6 * 100
    assert seen.value(LLM_TOKENS.name, type="output") == 6 * 20
    assert seen.value(f"{LLM_TIME_TO_FIRST_TOKEN.name}_count") == 2
    assert seen.spans[0].attributes["gen_ai.response.model"] == "tiny-1"
    assert seen.value(INTERNAL_ERRORS.name) == 0


def test_a_model_that_fails_or_is_left_is_counted_so() -> None:
    """An exception is classified; a stream that is closed or dropped was cancelled, and nothing stays in the context."""
    with capture() as seen:
        with pytest.raises(TimeoutError):
            Failing(messages=iter(())).invoke("hi")
        stream = _said(_answer("a b c")).stream("hi")
        next(stream)
        stream.close()
        dropped = _said(_answer("a b c")).stream("hi")
        next(dropped)
        del dropped
        gc.collect()
    assert seen.value(LLM_ERRORS.name, error_type="timeout") == 1
    assert seen.value(LLM_CALLS.name, outcome="cancelled") == 2
    assert seen.value(LLM_CALLS.name) == 3


def test_off_everything_is_as_it_was() -> None:
    """After the layer has been on, generators, values and exceptions are the libraries' own."""
    with capture():
        stream = _graph(_said(_answer())).stream(ASK)
    assert len(list(stream)) == 1
    assert _said(_answer()).invoke("hi").content == "hello"
    assert search.invoke({"query": "q"}) == "found q"


@pytest.mark.parametrize(("content", "told"), [("full", ('{"query":"q"}', "found q")), ("off", (None, None))])
def test_what_a_tool_is_given_and_says_is_on_its_span_where_that_is_asked_for(content: str, told: tuple[str | None, str | None]) -> None:
    """The arguments of the call and the answer's words, and nothing unless asked."""
    with capture(content=content) as seen:
        search.invoke({"query": "q"})
    attributes = seen.span("execute_tool search").attributes
    assert (attributes.get(TOOL_ARGUMENTS), attributes.get(TOOL_RESULT)) == told
