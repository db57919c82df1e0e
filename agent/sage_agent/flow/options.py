"""The settings of what happens to a request on its way, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sage_agent.llm.options import parse_deadline
from sage_obs.settings import Option, parse_amount, parse_bool, parse_choice, parse_int, parse_text


def parse_names(value: object) -> tuple[str, ...]:
    """Names as a list, or separated by commas; each counts once."""
    names = value if isinstance(value, list) else parse_text(value).split(",")
    return tuple(dict.fromkeys(name for name in (parse_text(one).strip() for one in names) if name))


FLOW_OPTIONS: Final[Mapping[str, Option]] = {
    "cache_enabled": Option(
        "performance.cache.enabled", ("SAGE_CACHE_ENABLED",), parse_bool, False, "whether anything is remembered to save a call"
    ),
    "response_cache": Option(
        "performance.cache.response_cache", ("SAGE_RESPONSE_CACHE",), parse_bool, True, "whether answers are, where anything is"
    ),
    "cache_ttl": Option("performance.cache.ttl", ("SAGE_CACHE_TTL",), parse_deadline, 300.0, "for how long, in seconds"),
    "cache_scope": Option(
        "performance.cache.scope", ("SAGE_CACHE_SCOPE",), parse_choice("user", "tenant"), "user", "who may be given an answer again"
    ),
    "session_turns": Option(
        "sessions.max_turns", ("SAGE_SESSIONS_MAX_TURNS",), parse_int(0, 1000), 40, "messages of a conversation that are kept; 0 keeps none"
    ),
    "session_chars": Option(
        "sessions.max_chars",
        ("SAGE_SESSIONS_MAX_CHARS",),
        parse_int(1, 10_000_000),
        32_000,
        "characters of them that are sent with a message; the oldest are left out",
    ),
    "session_ttl": Option(
        "sessions.ttl",
        ("SAGE_SESSIONS_TTL",),
        parse_deadline,
        86_400.0,
        "how long after its last message a conversation is kept, in seconds",
    ),
    "budget_agent": Option("budgets.agent", ("SAGE_BUDGET_AGENT",), parse_amount, 0.0, "US dollars for models in a period; 0: no limit"),
    "budget_tenant": Option("budgets.tenant", ("SAGE_BUDGET_TENANT",), parse_amount, 0.0, "the same for each tenant"),
    "budget_user": Option("budgets.user", ("SAGE_BUDGET_USER",), parse_amount, 0.0, "the same for each caller"),
    "budget_period": Option("budgets.period", ("SAGE_BUDGET_PERIOD",), parse_deadline, 86_400.0, "how long a period is, in seconds"),
    "budget_shown": Option(
        "budgets.tenants_shown", ("SAGE_BUDGET_TENANTS_SHOWN",), parse_names, (), "tenants whose share of their budget is a metric"
    ),
    "budget_unknown": Option(
        "budgets.unknown_price",
        ("SAGE_BUDGET_UNKNOWN_PRICE",),
        parse_choice("allow", "refuse"),
        "allow",
        "what happens to calls of a model without a price where there is a budget",
    ),
}
"""By argument name."""
