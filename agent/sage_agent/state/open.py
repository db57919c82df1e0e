"""The configured store, and what is measured of it."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import sage_obs
from sage_agent.state.base import State, Store
from sage_agent.state.config import StateConfig
from sage_obs.conventions import STORAGE_CONNECTIONS, STORAGE_DURATION
from sage_obs.errors import SageObsError

_PARTS: Final = ("limits", "nonces", "sessions", "budgets", "cache", "tasks")

_EVERY_SECONDS: Final = 1.0


class MissingStoreError(SageObsError, ImportError):
    """The client of the configured store is not installed."""


def make_state(config: StateConfig) -> tuple[State, str]:
    """State that is not open yet, and what whoever runs the agent should know of it, "" for nothing. Raises MissingStoreError.

    Where nobody chose a store and the default file cannot be written, state is kept in memory.
    """
    state, notice = _make(config)
    for part in _PARTS:
        _time(getattr(state, part), part)
    return state, notice


async def keep_counting(store: Store) -> None:
    """Say every second how many connections there are."""
    while True:
        used, idle = store.connections()
        sage_obs.series(STORAGE_CONNECTIONS, "used").set(used)
        sage_obs.series(STORAGE_CONNECTIONS, "idle").set(idle)
        await asyncio.sleep(_EVERY_SECONDS)


def _make(config: StateConfig) -> tuple[State, str]:
    match config.kind:
        case "postgres":
            return _postgres(config), ""
        case "redis":
            return _redis(config), ""
        case "sqlite" if config.asked or _can_write(config):
            from sage_agent.state.sqlite import sqlite_state

            return sqlite_state(config.path, timeout=config.timeout), ""
    from sage_agent.state.memory import memory_state

    notice = f"{config.path} cannot be written: state is kept in memory and ends with this process. SAGE_STORAGE_PATH names another place."
    return memory_state(), "" if config.asked else notice


def _postgres(config: StateConfig) -> State:
    try:
        import psycopg_pool as _  # noqa: F401 - only whether it is there
    except ImportError as exc:
        raise MissingStoreError("State in PostgreSQL needs psycopg and its pool.", hint="pip install 'sage-obs[postgres]'") from exc
    from sage_agent.state.postgres import Pool, postgres_state

    return postgres_state(config.url, pool=Pool(config.max_open, config.max_idle, config.lifetime), timeout=config.timeout)


def _redis(config: StateConfig) -> State:
    try:
        import redis as _  # noqa: F401 - only whether it is there
    except ImportError as exc:
        raise MissingStoreError("State in Redis needs its client.", hint="pip install 'sage-obs[redis]'") from exc
    from sage_agent.state.redis import redis_state

    return redis_state(config.url, connections=config.redis_connections, timeout=config.timeout)


def _can_write(config: StateConfig) -> bool:
    """Whether the file is there and can be written, or can be made."""
    if config.path.exists():
        return os.access(config.path, os.W_OK) and os.access(config.path.parent, os.W_OK)
    folder = next(one for one in (config.path.absolute().parent, *config.path.absolute().parents) if one.exists())
    return folder.is_dir() and os.access(folder, os.W_OK)


def _time(part: Any, kind: str) -> None:
    """Measure every operation of a part."""
    for name, method in inspect.getmembers(part, inspect.iscoroutinefunction):
        if not name.startswith("_"):
            setattr(part, name, _timed(method, f"{kind}.{name}"))


def _timed(method: Callable[..., Awaitable[Any]], operation: str) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(method)
    async def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return await method(*args, **kwargs)
        finally:
            sage_obs.observe(STORAGE_DURATION, time.perf_counter() - began, operation)

    return timed
