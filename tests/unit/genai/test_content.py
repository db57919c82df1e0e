from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import orjson
import pytest

import sage_obs
from sage_obs import testing
from sage_obs.conventions import INTERNAL_ERRORS
from sage_obs.genai.messages import MOST_BYTES, Called, Definition, Media, Message, Other, Returned, Text, definitions_json, messages_json
from sage_obs.privacy.content import Content
from sage_obs.privacy.plain import clipped, plain

KEY = "sk-abcdefghijklmnopqrstuvwxyz123456"
IN, OUT = "gen_ai.input.messages", "gen_ai.output.messages"
GIVEN, GAVE = "gen_ai.tool.call.arguments", "gen_ai.tool.call.result"


def _json(messages: list[Message], level: Content = Content.FULL) -> Any:
    return orjson.loads(messages_json(messages, level))


def test_every_kind_of_part_is_in_the_conventions_form() -> None:
    """Texts, reasoning, calls with their arguments read, responses and media; what is in a file never is."""
    parts = (
        Text("hello"),
        Text("hmm", "reasoning"),
        Called("c1", "weather", '{"city": "Bern"}'),
        Returned("c1", {"degrees": 7}),
        Media("image", uri="https://example.org/a.png"),
        Media("image", "image/png", uri="data:image/png;base64,AAAA"),
        Other("refused"),
    )
    (message,) = _json([Message("model", parts, "tool_calls")])
    assert (message["role"], message["finish_reason"]) == ("assistant", "tool_call")
    assert message["parts"] == [
        {"type": "text", "content": "hello"},
        {"type": "reasoning", "content": "hmm"},
        {"type": "tool_call", "id": "c1", "name": "weather", "arguments": {"city": "Bern"}},
        {"type": "tool_call_response", "id": "c1", "response": {"degrees": 7}},
        {"type": "uri", "modality": "image", "uri": "https://example.org/a.png"},
        {"type": "blob", "modality": "image", "mime_type": "image/png", "content": ""},
        {"type": "refused"},
    ]


def test_no_tool_content_leaves_out_what_tools_are_given_and_return() -> None:
    """Texts are there; of a tool its name, and how long the rest is."""
    message = Message("user", (Text("hello"), Called("c1", "weather", "secret"), Returned("c1", "secret")))
    assert _json([message], Content.NO_TOOL_CONTENT)[0]["parts"] == [
        {"type": "text", "content": "hello"},
        {"type": "tool_call", "id": "c1", "name": "weather", "arguments": None, "characters": 6},
        {"type": "tool_call_response", "id": "c1", "response": None, "characters": 6},
    ]


def test_a_role_that_nobody_knows_is_no_place_for_content() -> None:
    """It is `other`, whatever it says."""
    assert _json([Message("my secret", ())], Content.METADATA_ONLY)[0]["role"] == "other"


@pytest.mark.parametrize("text", ["x" * 100_000, "\n" * 100_000, "ü" * 100_000, '"\\' * 50_000, "\x00" * 50_000])
def test_what_is_too_long_is_cut_and_says_so(text: str) -> None:
    """An attribute has its bytes at most, is JSON, and keeps something of the text with a mark where it ends."""
    written = messages_json([Message("user", (Text(text),))], Content.FULL)
    assert len(written.encode()) <= MOST_BYTES
    content = orjson.loads(written)[0]["parts"][0]["content"]
    assert content.startswith(text[:1000])
    assert content.endswith(" characters left out]")


def test_the_last_messages_are_kept() -> None:
    """Of a long history the beginning is left out, and how much of it is said first."""
    found = _json([Message("user", (Text(f"{number} " + "x" * 5000),)) for number in range(50)])
    assert found[0]["parts"][0]["content"].endswith("messages left out]")
    assert found[-1]["parts"][0]["content"].startswith("49 ")
    left_out = int(found[0]["parts"][0]["content"].split("[")[1].split()[0])
    assert left_out == 50 - (len(found) - 1)


def test_many_tools_and_parts_are_bounded_too() -> None:
    """Neither a thousand parts nor a thousand tools make an attribute longer than it may be."""
    parts = tuple(Text(f"{number} " * 100) for number in range(1000))
    assert len(messages_json([Message("user", parts)], Content.FULL)) <= MOST_BYTES
    tools = [Definition("function", f"t{number}", "x" * 100, {"type": "object"}) for number in range(1000)]
    assert len(definitions_json(tools, Content.FULL)) <= MOST_BYTES


@pytest.mark.parametrize("before", range(0, 70, 7))
def test_a_secret_at_the_cut_is_not_cut_in_two(before: int) -> None:
    """Wherever the cut falls in a secret, no piece of it is left."""
    for most in (200, 1000):
        text = "a" * (most - before) + " " + KEY + " " + "b" * 10_000
        assert "abcdefghij" not in clipped(text, most)
        assert "abcdefghij" not in str(plain({"text": text}, most))
    far = "a" * (1000 + 4096 - before) + " " + KEY
    assert "abcdef" not in clipped(far + "b" * 9000, 1000)


def test_a_secret_at_the_end_of_what_is_looked_at_is_not_pulled_in() -> None:
    """Where long secrets before it shrink to their masks, one that was not seen whole stays out all the same."""
    most = 400
    long = ("sk-" + "a" * 1100 + " ") * 4
    text = long + "b" * (most + 4096 - len(long) - 11) + " " + KEY + "c" * 1000
    assert "abcdef" in text[: most + 4096]
    assert "abcdef" not in clipped(text, most)


def test_only_data_is_written_of_a_value() -> None:
    """Data is written by its fields, an object by its type: neither its `__repr__` nor its `__str__` is asked."""

    @dataclasses.dataclass
    class Point:
        x: int
        password: str

    class Loud:
        def __repr__(self) -> str:
            raise AssertionError

        __str__ = __repr__

    circle: list[Any] = []
    circle.append(circle)
    found: Any = plain({"p": Point(1, "hunter2hunter2"), "o": Loud(), "b": b"abc", "n": 2**80, 7: float("nan")}, 1000)
    assert found == {"p": {"x": 1, "password": "[REDACTED]"}, "o": "<Loud>", "b": "<3 bytes>", "n": str(2**80), "7": None}
    assert "left out" in str(plain(circle, 1000))
    assert "left out" in str(plain(list(range(5000)), 100_000))


def test_a_manual_call_says_what_it_asks_and_is_answered() -> None:
    """`asked` and `answered` take texts and OpenAI's messages, and the call's own level beats the setting."""
    with testing.capture(content="off") as telemetry:
        with sage_obs.llm_call("p", "m", content="full") as call:
            call.asked([{"role": "user", "content": "hi"}], system="Be kind.", tools=[{"name": "t", "description": "d"}])
            call.answered("hello")
        with sage_obs.llm_call("p", "quiet") as call:
            call.asked("hi")
    found = telemetry.span("chat m").attributes
    assert orjson.loads(str(found[IN])) == [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}]
    assert orjson.loads(str(found[OUT])) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "hello"}], "finish_reason": "stop"}
    ]
    assert orjson.loads(str(found["gen_ai.system_instructions"])) == [{"type": "text", "content": "Be kind."}]
    assert IN not in telemetry.span("chat quiet").attributes


def _functions() -> dict[str, Callable[..., Any]]:
    def plain_one(question: str, *, limit: int = 3) -> dict[str, int]:
        return {question: limit}

    async def waiting(question: str, *, limit: int = 3) -> dict[str, int]:
        return {question: limit}

    def pieces(question: str, *, limit: int = 3) -> Iterator[str]:
        yield question
        yield str(limit)

    async def async_pieces(question: str, *, limit: int = 3) -> AsyncIterator[str]:
        yield question
        yield str(limit)

    return {"plain": plain_one, "async": waiting, "generator": pieces, "async generator": async_pieces}


def _run(kind: str, decorate: Callable[[Any], Any]) -> None:
    function = decorate(_functions()[kind])

    async def main() -> None:
        if kind == "async":
            await function("why", limit=4)
        elif kind == "async generator":
            [item async for item in function("why", limit=4)]

    if kind.startswith("async"):
        asyncio.run(main())
    else:
        list(function("why", limit=4))


@pytest.mark.parametrize("kind", _functions())
def test_a_tool_says_what_it_is_given_and_returns(kind: str) -> None:
    """Arguments by name and the result, a generator's put together, and only with `full`."""
    for level, there in (("full", True), ("no_tool_content", False), ("off", False)):
        with testing.capture(content=level) as telemetry:
            _run(kind, sage_obs.tool("search"))
        found = telemetry.span("execute_tool search").attributes
        assert (GIVEN in found, GAVE in found) == (there, there)
        if there:
            assert orjson.loads(str(found[GIVEN])) == {"question": "why", "limit": 4}
            assert found[GAVE] == ("why4" if "generator" in kind else '{"why":4}')


@pytest.mark.parametrize("inside", [False, True], ids=["root", "inside"])
@pytest.mark.parametrize("kind", _functions())
def test_an_agent_says_what_it_is_asked_and_answers(kind: str, inside: bool) -> None:  # noqa: FBT001 - a table
    """As messages, whether it is a request of its own or part of one."""
    with testing.capture() as telemetry:
        if inside:
            sage_obs.agent("outer", content="off")(lambda: _run(kind, sage_obs.agent("shop", content="full")))()
        else:
            _run(kind, sage_obs.agent("shop", content="full"))
    found = telemetry.span("invoke_agent shop").attributes
    ((asked,), (answered,)) = (orjson.loads(str(found[name])) for name in (IN, OUT))
    assert orjson.loads(asked["parts"][0]["content"]) == {"question": "why", "limit": 4}
    assert answered["parts"][0]["content"] == ("why4" if "generator" in kind else '{"why":4}')


def test_whose_method_it_is_is_no_argument() -> None:
    """What an object holds is not what its method is given, and a question is a text there too."""

    @dataclasses.dataclass
    class Support:
        instructions: str = "told to nobody"

        @sage_obs.agent("support", content="full")
        def answer(self, question: str) -> str:
            return self.look_up(question)

        @sage_obs.tool("look_up", content="full")
        def look_up(self, topic: str) -> str:
            return topic

    with testing.capture() as seen:
        Support().answer("why?")
    told = {name: text for span in seen.spans for name, text in span.attributes.items()}
    assert orjson.loads(str(told[IN]))[0]["parts"] == [{"type": "text", "content": "why?"}]
    assert orjson.loads(str(told[GIVEN])) == {"topic": "why?"}


def test_a_context_inside_another_keeps_the_level_that_it_does_not_name() -> None:
    """The nearest that names one decides, and behind a block it is as it was before."""
    levels: list[bool] = []
    with testing.capture(content="full"), sage_obs.context(content="off"):
        for around in ({"tenant": "acme"}, {"content": "full"}, {}):
            with sage_obs.context(**around), sage_obs.llm_call("p", "m") as call:
                levels.append(call.capture.on)
    assert levels == [False, True, False]


def test_an_unknown_level_captures_nothing_and_is_counted() -> None:
    """It fails closed, in a call and in a context, and what was said of it is nowhere."""
    with testing.capture(content="full") as telemetry:
        testing.reraise_internal_errors(on=False)
        with sage_obs.llm_call("p", "m", content="fulll") as call:
            call.asked("a prompt")
        with sage_obs.context(content="al1"), sage_obs.llm_call("p", "m") as call:
            call.asked("a prompt")
        assert [IN in span.attributes for span in telemetry.spans] == [False, False]
        assert telemetry.value(INTERNAL_ERRORS.name, component="content") == 2


def test_an_error_while_capturing_captures_nothing_and_says_nothing_of_the_content() -> None:
    """What was captured before it is dropped too; the log names the type of the error and not its message."""

    class Hostile(dict[str, Any]):
        def items(self) -> Any:
            raise RuntimeError("a secret prompt")

    with testing.capture(content="full") as telemetry:
        testing.reraise_internal_errors(on=False)
        with sage_obs.llm_call("p", "m") as call:
            call.asked("a secret prompt")
            call.asked([{"role": "user", "tool_calls": [{"function": {"name": "t", "arguments": Hostile()}}]}])
            call.answered("a secret answer")
        assert not {IN, OUT} & set(telemetry.span("chat m").attributes)
        assert telemetry.value(INTERNAL_ERRORS.name, component="content") == 1
    assert "secret" not in repr(telemetry.lines)
    assert "RuntimeError" in repr(telemetry.lines)


def test_nothing_is_built_where_no_span_is_recorded(instrument: Callable[..., sage_obs.Handle]) -> None:
    """Without anybody who receives spans, content costs nothing."""

    class Untouched(dict[str, Any]):
        def get(self, *_: object) -> Any:
            raise AssertionError

    instrument(content="full")
    with sage_obs.llm_call("p", "m") as call:
        call.asked([Untouched()])
        assert not call.capture.on
