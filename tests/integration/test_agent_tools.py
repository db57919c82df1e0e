"""An agent whose model calls functions of the operator's own, over every provider's wire."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.support.agents import RunningAgent, running_agent
from tests.support.llm_server import FakeModels, fake_models
from tests.support.llm_tools import CITIES, PROMPT, SAID, results_of
from tests.support.llm_wire import PIECES, SECRET

_PREFIX: Final = {"openai": "/v1", "anthropic": "", "gemini": ""}
_TOOLS: Final = '''
import time
from sage_agent.tools import ToolError

TEMPERATURES = {"Oslo": 4, "Bern": 11}

async def weather(city: str) -> dict:
    """How warm it is in a city."""
    if city not in TEMPERATURES:
        raise ToolError(f"there is no city {city}")
    return {"city": city, "degrees": TEMPERATURES[city]}

def slow(seconds: float) -> str:
    """Take a while."""
    time.sleep(seconds)
    return "done"

def broken() -> str:
    """Fail."""
    raise RuntimeError("postgres://user:hunter2@db is down")

def long() -> str:
    """Say much."""
    return "x" * 200
'''


@contextmanager
def _agent(folder: Path, *, environ: dict[str, str] | None = None, **agent: Any) -> Iterator[RunningAgent]:
    (folder / "shop_tools.py").write_text(_TOOLS)
    names = [f"shop_tools:{name}" for name in ("weather", "slow", "broken", "long")]
    (folder / "config.yaml").write_text(json.dumps({"agent": {"tools": names, **agent}}))
    with running_agent(folder, environ={"PYTHONPATH": str(folder), "SAGE_LLM_SCRIPTED_LATENCY": "0", **(environ or {})}) as running:
        yield running


def _ask(agent: RunningAgent, text: str) -> httpx.Response:
    return httpx.post(f"{agent.url}/v1/messages", json={"parts": [{"kind": "text", "text": text}]}, timeout=20)


def _said(agent: RunningAgent, text: str) -> str:
    return str(_ask(agent, text).json()["parts"][0]["text"])


def _events(agent: RunningAgent, text: str) -> list[tuple[str, dict[str, Any]]]:
    whole = httpx.post(f"{agent.url}/v1/messages/stream", json={"parts": [{"kind": "text", "text": text}]}, timeout=20).text
    blocks = [block.splitlines() for block in whole.strip().split("\n\n")]
    return [(block[0].removeprefix("event: "), json.loads(block[1].removeprefix("data: "))) for block in blocks]


def _metrics(agent: RunningAgent) -> list[str]:
    return httpx.get(f"{agent.ops_url}/metrics", timeout=5).text.splitlines()


def _models(models: FakeModels, name: str) -> dict[str, str]:
    address = models.url + _PREFIX[name]
    return {"SAGE_LLM_PROVIDER": name, "SAGE_LLM_MODEL": "m-1", "SAGE_LLM_BASE_URL": address, "SAGE_LLM_API_KEY": "k-1"}


@pytest.mark.parametrize("name", _PREFIX)
def test_the_model_is_told_what_its_tools_have_found(tmp_path: Path, name: str) -> None:
    """Two calls of one answer are made, their results go back in their order, and the tokens of both steps are counted."""
    with fake_models() as models, _agent(tmp_path, environ=_models(models, name)) as agent:
        answer = _ask(agent, PROMPT).json()
        lines = _metrics(agent)
    assert answer["parts"][0]["text"] == SECRET
    assert answer["metadata"] == {"model": "m-1", "usage": {"input_tokens": 200, "output_tokens": 40}, "tools": ["weather", "weather"]}
    expected = [
        json.dumps({"city": city, "degrees": degrees}, separators=(",", ":")) for city, degrees in zip(CITIES, (4, 11), strict=True)
    ]
    assert [results_of(body) for body in models.asked] == [[], expected]
    assert 'sage_tool_calls_total{outcome="success",tool="weather"} 2.0' in lines
    assert any(line.startswith("sage_agent_steps_sum{") and line.endswith(" 4.0") for line in lines)


@pytest.mark.parametrize("name", _PREFIX)
def test_a_stream_goes_on_after_the_tools(tmp_path: Path, name: str) -> None:
    """What the model says before its calls and after them arrives as it comes; calls cut into pieces are whole again."""
    with fake_models() as models, _agent(tmp_path, environ=_models(models, name)) as agent:
        events = _events(agent, PROMPT)
    pieces = [event["parts"][0]["text"] for kind, event in events if kind == "message"]
    assert pieces == [SAID, *PIECES]
    assert events[-1][0] == "done"
    assert [len(results_of(body)) for body in models.asked] == [0, 2]


def test_what_gemini_signed_comes_back_to_it(tmp_path: Path) -> None:
    """Its models refuse a call of theirs without the signature it came with; calls without an id get none."""
    with fake_models() as models, _agent(tmp_path, environ=_models(models, "gemini")) as agent:
        _ask(agent, PROMPT)
    said = models.asked[1]["contents"][1]["parts"]
    calls = [{"name": "weather", "args": {"city": city}} for city in CITIES]
    assert said == [{"text": SAID}, {"functionCall": calls[0], "thoughtSignature": "c2lnbmVk"}, {"functionCall": calls[1]}]


def test_the_last_time_the_model_has_to_answer(tmp_path: Path) -> None:
    """With a single step it is told at once that no tool may be called."""
    with fake_models() as models, _agent(tmp_path, environ=_models(models, "openai"), max_steps=1) as agent:
        answer = _ask(agent, PROMPT).json()
    assert answer["parts"][0]["text"] == SECRET
    assert [body["tool_choice"] for body in models.asked] == ["none"]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ('weather {"city": "Bern"}', 'weather said {"city":"Bern","degrees":11}.'),
        ('weather {"city": "Atlantis"}', "weather said Error: there is no city Atlantis."),
        ('weather {"town": "Bern"}', "weather said Error: wrong arguments: city: Missing required argument; town: Unexpected keyword"),
        ("weather {nonsense}", "weather said Error: the arguments are not valid JSON"),
        ('slow {"seconds": 9}', "slow said Error: the tool took too long."),
        ("broken {}", "broken said Error: the tool failed."),
        ("long {}", f"long said {'x' * 150} [cut off after 150 characters]."),
        ("no_such {}", "no_such said Error: there is no such tool; there are weather, slow, broken, long."),
    ],
)
def test_whatever_becomes_of_a_call_is_told(bad_days: RunningAgent, call: str, told: str) -> None:
    """A call that cannot be made has an error for a result, and nothing of an exception's message in it."""
    assert told in _said(bad_days, f"please\ncall {call}")


@pytest.fixture(scope="module")
def bad_days(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    """One agent with short bounds."""
    with _agent(tmp_path_factory.mktemp("tools"), tool_timeout="200ms", tool_max_chars=150) as agent:
        yield agent


def test_failures_of_tools_are_counted_and_logged_without_secrets(bad_days: RunningAgent) -> None:
    """The operator finds the exception in the log, and its password nowhere."""
    assert "the tool failed" in _said(bad_days, "call broken {}")
    lines = _metrics(bad_days)
    logged = [line for line in bad_days.lines() if line.get("message") == "a tool failed"]
    assert any(line.startswith('sage_tool_calls_total{outcome="server_error",tool="broken"}') and line[-3:] != "0.0" for line in lines)
    assert logged
    assert logged[0]["tool"] == "broken"
    assert "RuntimeError" in json.dumps(logged)
    assert "hunter2" not in json.dumps(logged)


def test_a_tool_that_hangs_keeps_nobody_from_exiting(tmp_path: Path) -> None:
    """A thread that sleeps for an hour is given up, and SIGTERM ends the agent as quickly as ever."""
    with _agent(tmp_path, tool_timeout="100ms") as agent:
        assert "took too long" in _said(agent, 'call slow {"seconds": 3600}')
    assert agent.process.popen.returncode == 0


def test_an_answer_that_tools_had_a_part_in_is_not_given_again(tmp_path: Path) -> None:
    """The cache keeps the plain answer and asks anew for the one of a tool."""
    environ = {"SAGE_CACHE_ENABLED": "true"}
    with _agent(tmp_path, environ=environ) as agent:
        tooled = [_ask(agent, 'call weather {"city": "Oslo"}').json()["metadata"].get("cached", False) for _ in range(2)]
        plain = [_ask(agent, "hello").json()["metadata"].get("cached", False) for _ in range(2)]
    assert (tooled, plain) == ([False, False], [False, True])


def test_the_page_on_tools_works_as_it_stands(tmp_path: Path) -> None:
    """Its function and its settings, asked as it says."""
    page = (Path(__file__).parents[2] / "docs/how-to/give-the-agent-tools.md").read_text()
    (tmp_path / "shop_tools.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    (tmp_path / "config.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0])
    body = json.loads(page.partition("-d '")[2].partition("'")[0])
    with running_agent(tmp_path, environ={"PYTHONPATH": str(tmp_path)}) as agent:
        answer = httpx.post(f"{agent.url}/v1/messages", json=body, timeout=10).json()
    assert 'find_order said {"number":"A-17","state":"on its way"}.' in answer["parts"][0]["text"]
    assert answer["metadata"]["tools"] == ["find_order"]
