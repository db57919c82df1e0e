"""The settings of the A2A protocol, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sage_agent.llm.fallbacks import parse_url
from sage_agent.llm.options import parse_deadline
from sage_obs.settings import Option, parse_text

SWITCH: Final = ("auto", "true", "false")


def parse_switch(value: object) -> str:
    """`auto`, or yes or no in any of the usual spellings."""
    text = str(value).strip().lower()
    if text == "auto":
        return text
    if text in {"true", "1", "yes", "on"}:
        return "true"
    if text in {"false", "0", "no", "off"}:
        return "false"
    raise ValueError(f"expected one of {', '.join(SWITCH)}")


A2A_OPTIONS: Final[Mapping[str, Option]] = {
    "a2a_enabled": Option(
        "a2a.enabled", ("SAGE_A2A_ENABLED",), parse_switch, "auto", "whether A2A is spoken; `auto` where its package is installed"
    ),
    "a2a_url": Option(
        "a2a.url", ("SAGE_A2A_URL",), parse_url, "", "this agent's address in its card, without /a2a; none means the one it was asked under"
    ),
    "a2a_description": Option(
        "a2a.description", ("SAGE_A2A_DESCRIPTION",), parse_text, "Answers messages with a language model.", "what its card says it does"
    ),
    "a2a_task_ttl": Option(
        "a2a.task_ttl",
        ("SAGE_A2A_TASK_TTL",),
        parse_deadline,
        86_400.0,
        "how long a task can be asked about after its last change, in seconds",
    ),
}
"""By argument name."""
