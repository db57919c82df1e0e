"""What is kept about a user, handed out or forgotten."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sage_agent.state.base import State, StateError
from sage_agent.state.config import StateConfig
from sage_agent.state.open import make_state
from sage_obs.errors import UnavailableError

T = TypeVar("T")


async def export(config: StateConfig, *, tenant: str, user: str) -> list[dict[str, Any]]:
    """Every conversation of a user, by its id. Raises UnavailableError."""

    async def work(state: State) -> list[dict[str, Any]]:
        found = await state.sessions.export(tenant, user)
        return [
            {"contextId": context, "turns": [{"role": turn.role, "text": turn.text} for turn in turns]} for context, turns in found.items()
        ]

    return await _with_store(config, work)


async def erase(config: StateConfig, *, tenant: str, user: str) -> int:
    """Forget every conversation of a user, and every answer that may be given again; returns how many conversations there were.

    Answers are kept under digests that do not tell whose they are, so all of them go. Raises UnavailableError.
    """

    async def work(state: State) -> int:
        count = await state.sessions.erase(tenant, user)
        await state.cache.clear()
        return count

    return await _with_store(config, work)


async def _with_store(config: StateConfig, work: Callable[[State], Awaitable[T]]) -> T:
    state, _ = make_state(config)
    if state.store.kind == "memory":
        raise UnavailableError(
            "State is kept in the memory of the agent's process, where no other can reach it.", hint="It ends with that process."
        )
    try:
        await state.store.open()
        return await work(state)
    except StateError as exc:
        raise UnavailableError(f"Where state is kept cannot be used: {exc.message}", hint="Start it, or correct storage.*.") from exc
    finally:
        await state.store.close()
