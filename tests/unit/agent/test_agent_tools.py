"""Functions as tools: which can be called, and what is said of those that cannot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import orjson
import pytest

import sage_obs
from sage_agent.tools.config import ToolsConfig
from sage_agent.tools.functions import as_text, load_tool
from sage_agent.tools.toolbox import open_toolbox
from sage_obs.errors import ConfigError

_MODULE: Final = '''
from typing import Annotated, Literal
from pydantic import BaseModel, Field
import sage_obs

class Place(BaseModel):
    city: str

def find(city: Annotated[str, Field(description="its name")], unit: Literal["c", "f"] = "c") -> Place:
    """Find a city.

    By its name.
    """
    return Place(city=city)

@sage_obs.tool("find-measured")
async def measured(city: str) -> str:
    """Measured."""
    return city

def by_place(city: str, /) -> str:
    return city

def many(*cities: str) -> str:
    return ""

def odd(socket: "Unknown") -> str:
    return ""

number = 3
renamed = lambda: 1
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of tools that can be imported, and is forgotten afterwards."""
    (tmp_path / "tools_under_test.py").write_text(_MODULE)
    (tmp_path / "tools_that_fail.py").write_text("raise RuntimeError('no licence')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("tools_under_test", "tools_that_fail"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "tools_under_test"


def test_a_function_is_described_by_its_signature_and_docstring(module: str) -> None:
    """Types, defaults and annotations become the schema, the docstring the description."""
    spec = load_tool(f"{module}:find").spec
    schema = orjson.loads(spec.schema)
    assert (spec.name, spec.description) == ("find", "Find a city.\n\nBy its name.")
    assert schema["required"] == ["city"]
    assert schema["properties"]["city"]["description"] == "its name"
    assert schema["properties"]["unit"]["enum"] == ["c", "f"]


def test_what_a_tool_returns_becomes_text(module: str) -> None:
    """Text as it is, a model of pydantic's and anything else as JSON."""
    assert as_text(load_tool(f"{module}:find").start('{"city": "Bern"}')) == '{"city":"Bern"}'
    assert [as_text(one) for one in ("warm", 4, None, {"a": [1]})] == ["warm", "4", "null", '{"a":[1]}']


def test_a_tool_that_is_measured_already_keeps_its_name_and_is_counted_once(module: str) -> None:
    """`@sage_obs.tool` may stay where it is."""
    tool = load_tool(f"{module}:measured")
    assert (tool.spec.name, tool.measured, tool.waits) == ("find-measured", True, True)
    assert vars(sage_obs.tool("x")(len))["__sage_tool__"] == "x"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("tools_nobody_has:f", "agent.tools: the module tools_nobody_has cannot be imported (ModuleNotFoundError"),
        ("tools_that_fail:f", "cannot be imported (RuntimeError: no licence)"),
        ("tools_under_test:f", "there is no f in the module tools_under_test"),
        ("tools_under_test:number", "tools_under_test:number is no function"),
        ("tools_under_test:renamed", "is called '<lambda>', which is no name for a tool"),
        ("tools_under_test:by_place", "takes arguments by their place"),
        ("tools_under_test:many", "takes arguments by their place"),
        ("tools_under_test:odd", "the arguments of tools_under_test:odd cannot be described"),
    ],
)
@pytest.mark.usefixtures("module")
def test_what_cannot_be_called_is_refused_at_the_start(place: str, said: str) -> None:
    """By its name, and with the reason."""
    with pytest.raises(ConfigError) as caught:
        load_tool(place)
    assert said in str(caught.value)


def test_two_tools_of_one_name_are_refused(module: str, tmp_path: Path) -> None:
    """A model could not tell them apart."""
    (tmp_path / "tools_again.py").write_text('def find() -> str:\n    "Find."\n    return ""\n')
    with pytest.raises(ConfigError) as caught:
        open_toolbox(ToolsConfig((f"{module}:find", "tools_again:find"), max_steps=2, timeout=1.0, max_chars=9))
    assert "two tools are called find" in str(caught.value)
