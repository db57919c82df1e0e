"""What happens to a request on its way, as read from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """Whether answers are given again, for how many seconds, and to whom."""

    enabled: bool
    ttl: float
    scope: str


@dataclass(frozen=True, slots=True)
class SessionsConfig:
    """How many messages of a conversation are kept and for how many seconds, and how many characters of them are sent."""

    max_turns: int
    max_chars: int
    ttl: float


@dataclass(frozen=True, slots=True)
class BudgetsConfig:
    """US dollars in a period of so many seconds, 0 for no limit; whose share is shown; whether a model may have no price."""

    agent: float
    tenant: float
    user: float
    period: float
    shown: tuple[str, ...]
    allow_unknown: bool

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return bool(self.agent or self.tenant or self.user)


@dataclass(frozen=True, slots=True)
class ConcurrencyConfig:
    """How many model calls run at once, how many requests are served at once, and how many more may wait, for how many seconds."""

    worker_pool_size: int
    max_concurrent: int
    queue_size: int
    queue_max_wait: float = 2.0


@dataclass(frozen=True, slots=True)
class FlowConfig:
    """All of it. `max_tokens` bounds an answer, `max_input_tokens` a question (0: nothing does); `overhead` is scripted, in seconds."""

    cache: CacheConfig
    sessions: SessionsConfig
    budgets: BudgetsConfig
    system_prompt: str
    max_tokens: int
    max_input_tokens: int
    overhead: float


def read_flow(plain: Mapping[str, Any]) -> FlowConfig:
    """Read the settings by argument name."""
    return FlowConfig(
        cache=CacheConfig(plain["cache_enabled"] and plain["response_cache"], plain["cache_ttl"], plain["cache_scope"]),
        sessions=SessionsConfig(plain["session_turns"], plain["session_chars"], plain["session_ttl"]),
        budgets=BudgetsConfig(
            agent=plain["budget_agent"],
            tenant=plain["budget_tenant"],
            user=plain["budget_user"],
            period=plain["budget_period"],
            shown=plain["budget_shown"],
            allow_unknown=plain["budget_unknown"] == "allow",
        ),
        system_prompt=plain["llm_system_prompt"],
        max_tokens=plain["llm_max_tokens"],
        max_input_tokens=plain["llm_max_input_tokens"],
        overhead=plain["scripted_overhead"],
    )
