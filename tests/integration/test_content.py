"""What the real clients say, on spans: whole and streamed, by the level that is set."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import orjson
import pytest
from google import genai
from google.genai import types

import sage_obs
from sage_obs import testing
from tests.support.llm_server import FakeModels, fake_models
from tests.support.llm_wire import SECRET

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    litellm: Any = importlib.import_module("litellm")

pytestmark = pytest.mark.filterwarnings("ignore")
"""litellm and google-genai warn of what they use themselves."""
KEY = "sk-abcdefghijklmnopqrstuvwxyz123456"
PROMPT = f"my key is {KEY}, what now?"
Ask = Callable[[str, bool], Any]


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeModels]:
    """The server."""
    with fake_models() as found:
        yield found
    litellm.in_memory_llm_clients_cache.flush_cache()


def _openai_chat(url: str, stream: bool) -> None:  # noqa: FBT001 - a table
    tool: Any = {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": {"type": "object"}}}
    messages: list[Any] = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": PROMPT}]
    with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        answer = client.chat.completions.create(model="gpt-4o", messages=messages, tools=[tool], stream=stream)
        _read(answer, stream=stream)


def _openai_responses(url: str, stream: bool) -> None:  # noqa: FBT001 - a table
    with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        _read(client.responses.create(model="gpt-4o", input=PROMPT, instructions="Be kind.", stream=stream), stream=stream)


def _anthropic(url: str, stream: bool) -> None:  # noqa: FBT001 - a table
    with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as client:
        messages: list[Any] = [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}]
        _read(client.messages.create(model="claude", max_tokens=9, system="Be kind.", messages=messages, stream=stream), stream=stream)


def _google(url: str, stream: bool) -> None:  # noqa: FBT001 - a table
    client = genai.Client(api_key="k", http_options=types.HttpOptions(base_url=url))
    ask: Any = client.models.generate_content_stream if stream else client.models.generate_content
    config = types.GenerateContentConfig(system_instruction="Be kind.")
    _read(ask(model="gemini-2.5-flash", contents=PROMPT, config=config), stream=stream)


def _litellm(url: str, stream: bool) -> None:  # noqa: FBT001 - a table
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": PROMPT}]
    _read(litellm.completion("openai/gpt-4o", messages, api_base=f"{url}/v1", api_key="k", stream=stream), stream=stream)


def _read(answer: Any, *, stream: bool) -> None:
    if stream:
        list(answer)


CLIENTS = {
    "openai-chat": _openai_chat,
    "openai-responses": _openai_responses,
    "anthropic": _anthropic,
    "google-genai": _google,
    "litellm": _litellm,
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("client", CLIENTS)
def test_prompts_and_answers_are_in_the_conventions_form(fake: FakeModels, client: str, stream: bool) -> None:  # noqa: FBT001 - a table
    """With `full` a span says what was asked and answered, assembled where it was streamed, and secrets are gone from it."""
    with testing.capture(content="full") as telemetry:
        CLIENTS[client](fake.url, stream)
    (span,) = [one for one in telemetry.spans if "gen_ai.operation.name" in one.attributes]
    system, *_ = _texts(span, "gen_ai.system_instructions") or _texts(span, "gen_ai.input.messages")
    assert system == "Be kind."
    assert _texts(span, "gen_ai.input.messages")[-1] == "my key is sk-[REDACTED], what now?"
    (message,) = orjson.loads(str(span.attributes["gen_ai.output.messages"]))
    assert message == {"role": "assistant", "parts": [{"type": "text", "content": SECRET}], "finish_reason": "stop"}
    assert KEY not in repr(span)


def _texts(span: testing.Span, name: str) -> list[str]:
    found = orjson.loads(str(span.attributes.get(name, "[]")))
    return [part["content"] for one in found for part in one.get("parts", [one]) if part["type"] == "text"]


@pytest.mark.parametrize("client", CLIENTS)
def test_without_content_a_span_says_who_said_how_much(fake: FakeModels, client: str) -> None:
    """With `metadata_only` roles, kinds and lengths are there, and not a word."""
    with testing.capture(content="metadata_only") as telemetry:
        CLIENTS[client](fake.url, True)
    (span,) = [one for one in telemetry.spans if "gen_ai.operation.name" in one.attributes]
    (message,) = orjson.loads(str(span.attributes["gen_ai.output.messages"]))
    assert message["parts"] == [{"type": "text", "content": "", "characters": len(SECRET)}]
    assert not any(word in repr(span) for word in (SECRET, "my key", "Be kind"))


def test_a_context_switches_the_content_of_a_client_off_and_on(fake: FakeModels) -> None:
    """What stands around a call says how much of it is captured, whatever the setting."""
    for setting, around, there in (("full", "off", False), ("off", "full", True), ("full", None, True)):
        with testing.capture(content=setting) as telemetry, sage_obs.context(content=around):
            _openai_chat(fake.url, stream=False)
        assert ("gen_ai.input.messages" in telemetry.span("chat gpt-4o").attributes) is there


def test_definitions_of_tools_are_on_the_span(fake: FakeModels) -> None:
    """The tools that a model may call are there, by name alone without content."""
    for level, described in (("full", "Tells it."), ("metadata_only", "")):
        with testing.capture(content=level) as telemetry:
            _openai_chat(fake.url, stream=False)
        (tool,) = orjson.loads(str(telemetry.span("chat gpt-4o").attributes["gen_ai.tool.definitions"]))
        assert (tool["type"], tool["name"], tool["description"]) == ("function", "weather", described)
