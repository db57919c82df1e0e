"""The tools of an agent: calls of them are made together, bounded and measured, and whatever happens is told to the model."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Final

import sage_obs
from sage_agent.llm.providers.base import ToolCall, ToolSpec
from sage_agent.tools.config import ToolsConfig
from sage_agent.tools.errors import ToolError
from sage_agent.tools.functions import Tool, as_text, load_tool
from sage_agent.within import Within, running_loop
from sage_obs.errors import ConfigError

_log = logging.getLogger("sage_agent")
_MOST_AT_ONCE: Final = 16
"""Calls of one answer; models that ask for more have lost their way."""


class Toolbox:
    """Calls tools. `config` bounds each call in seconds, and its result in characters."""

    def __init__(self, tools: Sequence[Tool], config: ToolsConfig) -> None:
        self._tools = {tool.spec.name: tool for tool in tools}
        self._config = config

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """What a model knows of them."""
        return tuple(tool.spec for tool in self._tools.values())

    async def run(self, calls: Sequence[ToolCall], *, deadline: float) -> tuple[str, ...]:
        """What comes of each call by `deadline`, in the event loop's time. A call that fails has an error for a result."""
        results = await asyncio.gather(*(self._run(call, deadline) for call in calls[:_MOST_AT_ONCE]))
        left_out = [f"Error: not called; at most {_MOST_AT_ONCE} tools are called at once."] * (len(calls) - _MOST_AT_ONCE)
        return (*results, *left_out)

    async def _run(self, call: ToolCall, deadline: float) -> str:
        tool = self._tools.get(call.name)
        if tool is None:
            return f"Error: there is no such tool; there are {', '.join(self._tools)}."
        try:
            text = await self._measured(tool, call, deadline)
        except ToolError as exc:
            text = f"Error: {exc}"
        except TimeoutError:
            text = "Error: the tool took too long."
        except Exception:  # noqa: BLE001 - it is the operator's code, and the model may know another way
            _log.exception("a tool failed", extra={"tool": tool.spec.name})
            text = "Error: the tool failed."
        most = self._config.max_chars
        return text if len(text) <= most else f"{text[:most]} [cut off after {most} characters]"

    async def _measured(self, tool: Tool, call: ToolCall, deadline: float) -> str:
        with nullcontext() if tool.measured else sage_obs.tool(tool.spec.name):
            with Within(min(deadline, running_loop().time() + self._config.timeout)):
                result = await (tool.start(call.arguments) if tool.waits else _in_thread(lambda: tool.start(call.arguments)))
            return as_text(result)


def open_toolbox(config: ToolsConfig) -> Toolbox | None:
    """The configured tools; None where there are none. Raises ConfigError for one that cannot be called."""
    if not config.functions:
        return None
    tools: dict[str, Tool] = {}
    for place in config.functions:
        tool = load_tool(place)
        if tools.setdefault(tool.spec.name, tool) is not tool:
            raise ConfigError(f"agent.tools: two tools are called {tool.spec.name}.", hint="Rename one of the functions.")
    return Toolbox(list(tools.values()), config)


async def _in_thread(work: Callable[[], Any]) -> Any:
    """What it returns, from a thread of its own. One that is given up goes on unheard, and keeps nobody from exiting."""
    loop, context = running_loop(), contextvars.copy_context()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(put: Callable[[Any], None], value: object) -> None:
        if not done.done():
            put(value)

    def run() -> None:
        try:
            outcome: tuple[Callable[[Any], None], object] = (done.set_result, context.run(work))
        except BaseException as exc:  # noqa: BLE001 - it is the waiting task's
            outcome = (done.set_exception, exc)
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="sage-agent-tool", daemon=True).start()
    return await done
