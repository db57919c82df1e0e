"""The settings of tools, as a table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from sage_agent.llm.options import parse_deadline
from sage_obs.settings import Option, parse_int, parse_text

_FUNCTION: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def parse_functions(value: object) -> tuple[str, ...]:
    """`module:name` as a list, or separated by commas; each counts once."""
    given = value if isinstance(value, list) else parse_text(value).split(",")
    functions = tuple(dict.fromkeys(one for one in (parse_text(each).strip() for each in given) if one))
    for one in functions:
        if _FUNCTION.fullmatch(one) is None:
            raise ValueError(f"{one!r} is no function; expected module:name, such as shop.tools:find_order")
    return functions


TOOLS_OPTIONS: Final[Mapping[str, Option]] = {
    "tools": Option(
        "agent.tools", ("SAGE_AGENT_TOOLS",), parse_functions, (), "functions that the model may call, as module:name; by commas, or a list"
    ),
    "max_steps": Option(
        "agent.max_steps",
        ("SAGE_AGENT_MAX_STEPS",),
        parse_int(1, 1000),
        8,
        "how often a model is asked in one request; the last time it has to answer",
    ),
    "tool_timeout": Option(
        "agent.tool_timeout", ("SAGE_AGENT_TOOL_TIMEOUT",), parse_deadline, 30.0, "the longest one call of a tool may take, in seconds"
    ),
    "tool_max_chars": Option(
        "agent.tool_max_chars",
        ("SAGE_AGENT_TOOL_MAX_CHARS",),
        parse_int(1, 10_000_000),
        20_000,
        "characters of a result that the model is told; the rest is cut off",
    ),
}
"""By argument name."""
