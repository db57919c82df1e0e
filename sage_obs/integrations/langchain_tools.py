"""langchain's tools, LangGraph's tool nodes and agents included: each run of one counts as a tool."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from sage_obs.conventions import ErrorType
from sage_obs.genai.nesting import Using
from sage_obs.genai.requests import recorder
from sage_obs.genai.toolcalls import ToolCall
from sage_obs.genai.usage import part
from sage_obs.integrations.patch import Patch, Patches


class LangchainToolsIntegration:
    """Patches `run` and `arun`, which every way of calling a tool goes through."""

    name = "langchain-tools"
    distribution = "langchain-core"
    module = "langchain_core.tools.base"
    versions = ("1.0", "2")

    def __init__(self) -> None:
        self._patches = Patches()

    def install(self) -> None:
        """Patch both."""
        from langchain_core.tools.base import BaseTool

        self._patches.install(Patch(BaseTool, "run", _sync), Patch(BaseTool, "arun", _async))

    def uninstall(self) -> None:
        """Put them back."""
        self._patches.uninstall()


class _Run:
    """One run, with what it came to."""

    __slots__ = ("_call", "kind")

    def __init__(self, call: ToolCall) -> None:
        self._call = call
        self.kind: ErrorType | None = None

    def answered(self, answer: Any) -> Any:
        """A tool may say in its answer that it failed. Returns the answer."""
        self._call.answered(answer, _told)
        if part(answer, "status") == "error":
            self.kind = ErrorType.TOOL_ERROR
        return answer


def _told(answer: Any) -> object:
    """What a tool has said: a message's content, else the answer itself."""
    return part(answer, "content") or answer


@contextmanager
def _counted(tool: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[_Run]:
    """Around a run; a function inside that is a tool of the same name, or an MCP client's call of it, is this one."""
    call = ToolCall(part(tool, "name"), attach=True)
    run = _Run(call)
    call.enter()
    call.asked(args[0] if args else kwargs.get("tool_input"))
    try:
        with Using(call.name):
            yield run
    except BaseException as exc:
        call.leave()
        call.finish(exc)
        raise
    call.leave()
    call.finish(None, kind=run.kind)


def _sync(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        if recorder() is None:
            return original(self, *args, **kwargs)
        with _counted(self, args, kwargs) as counted:
            return counted.answered(original(self, *args, **kwargs))

    return run


def _async(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def arun(self: Any, *args: Any, **kwargs: Any) -> Any:
        if recorder() is None:
            return await original(self, *args, **kwargs)
        with _counted(self, args, kwargs) as counted:
            return counted.answered(await original(self, *args, **kwargs))

    return arun


INTEGRATION: Final = LangchainToolsIntegration()
