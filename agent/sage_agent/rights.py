"""What is kept about a user, handed out or forgotten."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from sage_agent.state.base import Owner, State, StateError, Stored
from sage_agent.state.config import StateConfig
from sage_agent.state.open import make_state
from sage_obs.errors import UnavailableError

T = TypeVar("T")
_PAGE: Final = 100


async def export(config: StateConfig, *, tenant: str, user: str) -> list[dict[str, Any]]:
    """Every conversation of a user and every task, by their ids. Raises UnavailableError."""

    async def work(state: State) -> list[dict[str, Any]]:
        found = await state.sessions.export(tenant, user)
        conversations: list[dict[str, Any]] = [
            {"contextId": context, "turns": [{"role": turn.role, "text": turn.text} for turn in turns]} for context, turns in found.items()
        ]
        return conversations + [{"taskId": task_id, "task": _readable(task)} for task_id, task in await _tasks(state, Owner(tenant, user))]

    return await _with_store(config, work)


async def erase(config: StateConfig, *, tenant: str, user: str) -> int:
    """Forget every conversation and task of a user, and every answer that may be given again; returns how many of the first two.

    Answers are kept under digests that do not tell whose they are, so all of them go. Raises UnavailableError.
    """

    async def work(state: State) -> int:
        count = await state.sessions.erase(tenant, user) + await state.tasks.erase(Owner(tenant, user))
        await state.cache.clear()
        return count

    return await _with_store(config, work)


async def _tasks(state: State, owner: Owner) -> list[tuple[str, Stored]]:
    found: list[tuple[str, Stored]] = []
    while page := await state.tasks.list(owner, limit=_PAGE, after=found[-1][0] if found else ""):
        found += page
    return found


def _readable(task: Stored) -> dict[str, Any]:
    """A task as A2A writes it in JSON. Raises UnavailableError where its package, which has written it, is not here."""
    try:
        from a2a.types.a2a_pb2 import Task
        from google.protobuf.json_format import MessageToDict
    except ImportError as exc:
        raise UnavailableError("There are tasks of A2A, which only its package can read.", hint="pip install 'sage-obs[a2a]'") from exc
    return dict(MessageToDict(Task.FromString(task.document)))


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
