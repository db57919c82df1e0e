"""What is said to and by models and tools is nowhere while content is off, and secrets are nowhere whatever is captured."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import openai
import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import sage_obs
from tests.support.llm_server import FakeModels, fake_models
from tests.support.llm_wire import SECRET
from tests.support.otlp import Receiver, receiver

_LETTERS = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=24, max_size=40)
_SECRETS = st.one_of(
    _LETTERS.map(lambda text: f"sk-{text}"),
    _LETTERS.map(lambda text: f"ghp_{text}"),
    _LETTERS.map(lambda text: f"Bearer {text}"),
    _LETTERS.map(lambda text: f"password={text}"),
    _LETTERS.map(lambda text: f'{{"api_key": "{text}"}}'),
)
_SEEDS = st.text("BCDFGHJKLMNPQRSTVWXZ", min_size=16, max_size=24)
"""Nothing else says so."""
_PHASES = (Phase.reuse, Phase.generate)
"""A smaller secret says no more, and looking for one takes minutes."""


class _World:
    """A service that is on, and everywhere that it writes."""

    def __init__(self, collector: Receiver, fake: FakeModels, handle: sage_obs.Handle, log: Path) -> None:
        self._collector, self._fake, self._handle, self._log = collector, fake, handle, log

    def run(self, said: str) -> None:
        """An agent that asks a model, by a client and by hand, streamed and whole, uses tools, and fails."""

        @sage_obs.tool("search")
        def search(question: str) -> dict[str, str]:
            return {"found": question}

        @sage_obs.tool("broken")
        def broken(question: str) -> None:
            raise ValueError(question)

        @sage_obs.agent("shop")
        def answer(question: str) -> str:
            search(question)
            with suppress(ValueError):
                broken(question)
            self._ask(question)
            with suppress(ValueError), sage_obs.llm_call("p", "m") as call:
                call.asked([{"role": "user", "content": question}], system=question, tools=[{"name": "t", "description": question}])
                call.answered(question)
                raise ValueError(question)
            return question

        answer(said)
        logging.getLogger("shop").info("answered")

    def _ask(self, said: str) -> None:
        tools: Any = [{"type": "function", "function": {"name": "t", "description": said}}]
        with openai.OpenAI(base_url=f"{self._fake.url}/v1", api_key="k", max_retries=0) as client:
            for stream in (False, True):
                messages: list[Any] = [{"role": "system", "content": said}, {"role": "user", "content": said}]
                answer: Any = client.chat.completions.create(model="gpt-4o", messages=messages, tools=tools, stream=stream)
                if stream:
                    list(answer)

    def everything(self) -> tuple[str, str]:
        """What came over the wire, spans and pushed metrics; and log lines, and /metrics with its exemplars."""
        assert sage_obs.flush(10)
        accept = {"accept": "application/openmetrics-text"}
        scraped = httpx.get(f"http://127.0.0.1:{self._handle.metrics_port}/metrics", headers=accept).text
        sent = b"".join(self._collector.bodies).decode("utf-8", "replace")
        self._collector.bodies.clear()
        return sent, self._log.read_text() + scraped


@pytest.fixture(params=["off", "full"])
def world(request: pytest.FixtureRequest, instrument: Callable[..., sage_obs.Handle], tmp_path: Path) -> Iterator[tuple[str, _World]]:
    """The service at a level of content."""
    log = tmp_path / "log"
    with receiver() as collector, fake_models() as fake:
        to: dict[str, Any] = {"traces_endpoint": collector.url, "metrics_endpoint": collector.url, "log_output": str(log)}
        handle = instrument(**to, sampling_rate=1.0, content=request.param)
        yield request.param, _World(collector, fake, handle, log)
        sage_obs.uninstrument()


@settings(max_examples=8, deadline=None, phases=_PHASES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=_SEEDS, secret=_SECRETS)
def test_content_is_nowhere_unless_it_is_asked_for_and_secrets_never_are(world: tuple[str, _World], seed: str, secret: str) -> None:
    """Off, nothing of what was said is in any signal; with `full` it is on the spans alone, without its secrets."""
    level, service = world
    bare = secret.removeprefix("Bearer ").removeprefix("password=")
    bare = str(orjson.loads(bare)["api_key"]) if bare.startswith("{") else bare
    service.run(f"{seed} and {secret} and {seed}")
    sent, written = service.everything()
    leaked = bare[-20:] in sent + written  # a failed comparison of texts of this length would take minutes to explain
    assert not leaked
    there, asked = "chat gpt-4o" in sent, "answered" in written
    assert (there, asked) == (True, True)
    assert (seed in sent, SECRET in sent) == (level == "full", level == "full")
    assert (seed in written, SECRET in written) == (False, False)
