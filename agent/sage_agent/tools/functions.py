"""Functions as tools: found by their name, described by their signature and docstring, called with what a model says."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import ArgsKwargs, PydanticSerializationError, to_json

from sage_agent.llm.providers.base import ToolSpec
from sage_agent.tools.errors import ToolError
from sage_obs.errors import ConfigError

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
"""What every provider takes as the name of a tool."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function and what a model knows of it.

    `waits` is whether it waits by itself (`async def`) or has to be waited for in a thread, `measured` whether it is a
    `sage_obs.tool` already, whose name it has then.
    """

    spec: ToolSpec
    waits: bool
    measured: bool
    _call: Callable[[ArgsKwargs], Any]

    def start(self, arguments: str) -> Any:
        """Call it with JSON text: what it returns, or what has to be awaited for that. Raises ToolError for wrong arguments."""
        try:
            given = orjson.loads(arguments or "{}")
        except orjson.JSONDecodeError as exc:
            raise ToolError(f"the arguments are not valid JSON: {exc.msg}") from None
        if not isinstance(given, dict):
            raise ToolError("the arguments must be a JSON object")
        try:
            return self._call(ArgsKwargs((), given))
        except ValidationError as exc:
            if exc.title != self.spec.name:
                raise
            raise ToolError(f"wrong arguments: {_said(exc)}") from None


def load_tool(place: str) -> Tool:
    """The function at `module:name`. Raises ConfigError where there is none, or a model could not call it."""
    function = _find(place)
    measured = getattr(function, "__sage_tool__", None)
    name = measured or function.__name__
    if _NAME.fullmatch(name) is None:
        raise ConfigError(f"agent.tools: {place} is called {name!r}, which is no name for a tool.", hint=f"Use {_NAME.pattern}.")
    kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    if kinds & {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL}:
        raise ConfigError(f"agent.tools: {place} takes arguments by their place; a model gives each by its name.")
    try:
        adapter = TypeAdapter[Any](function, config=ConfigDict(title=name))  # type: ignore[arg-type] # a function is a type to pydantic
        schema = adapter.json_schema()
    except (PydanticUserError, NameError, TypeError) as exc:
        raise ConfigError(f"agent.tools: the arguments of {place} cannot be described: {str(exc).partition(chr(10))[0]}") from exc
    schema.pop("title", None)
    spec = ToolSpec(name, inspect.getdoc(function) or "", orjson.dumps(schema).decode())
    return Tool(spec, inspect.iscoroutinefunction(function), measured is not None, adapter.validate_python)


def as_text(result: object) -> str:
    """What a tool has returned, as a model is told it: text as it is, anything else as JSON. Raises ToolError where it is neither."""
    if isinstance(result, str):
        return result
    try:
        return to_json(result).decode()
    except (PydanticSerializationError, ValueError):
        raise ToolError(f"the result, of type {type(result).__name__}, cannot be written as JSON") from None


def _find(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as for `python -m`: what lies beside the configuration is found
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as exc:
        raise ConfigError(
            f"agent.tools: the module {module} cannot be imported ({type(exc).__name__}: {exc}).",
            hint="Start sage-agent in the folder it lies in, or install it.",
        ) from exc
    if found is None:
        raise ConfigError(f"agent.tools: there is no {name} in the module {module}.")
    if not inspect.isfunction(found):
        raise ConfigError(f"agent.tools: {place} is no function.")
    return found


def _said(error: ValidationError) -> str:
    """What is wrong with which argument, without the values."""
    wrong = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'all of them'}: {one['msg']}" for one in wrong)
