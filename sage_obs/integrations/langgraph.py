"""langgraph: a run of a compiled graph is an agent at work, streamed or not; inside a request it is part of that one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from sage_obs.genai.agents import agent
from sage_obs.genai.requests import recorder
from sage_obs.integrations.patch import Patch, Patches

_DEFAULT: Final = "LangGraph"
"""What the library calls a graph that has no name."""


class LanggraphIntegration:
    """Patches the two generators that every run of a graph goes through."""

    name = "langgraph"
    module = "langgraph.pregel.main"
    versions = ("1.0", "2")

    def __init__(self) -> None:
        self._patches = Patches()

    def install(self) -> None:
        """Patch `stream` and `astream`, which `invoke` and `ainvoke` iterate."""
        from langgraph.pregel.main import Pregel

        self._patches.install(Patch(Pregel, "stream", _running), Patch(Pregel, "astream", _running))

    def uninstall(self) -> None:
        """Put them back."""
        self._patches.uninstall()


def _running(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        if recorder() is None:
            return original(self, *args, **kwargs)
        name = self.name if isinstance(self.name, str) and self.name else _DEFAULT
        return agent(name)(original)(self, *args, **kwargs)

    return run


INTEGRATION: Final = LanggraphIntegration()
