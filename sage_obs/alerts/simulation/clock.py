"""Expressions for a clock that starts at 0: promtool's time begins in 1970, that of a real incident does not.

What is relative (windows, offsets) stays as it is. Functions of the present time get the incident's beginning added, and `@` loses it.
Strings and comments are left alone, so that the expression stays what was written but for that.
"""

from __future__ import annotations

import re
from typing import Final

_TOKEN: Final = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)|(?P<comment>\#[^\n]*)"""
    r"""|(?P<at>@\s*(?P<time>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?))"""
    r"""|(?P<now>(?<![\w:.])time\s*\(\s*\))"""
    r"""|(?P<part>(?<![\w:.])(?P<name>minute|hour|day_of_week|day_of_month|day_of_year|days_in_month|month|year)\s*\(\s*\))"""
    r"""|(?P<stamp>(?<![\w:.])timestamp\s*\()|(?P<open>\()|(?P<close>\))""",
    re.VERBOSE,
)


def shifted(expr: str, origin: float) -> str:
    """The expression for a clock that shows 0 at the Unix time `origin` (seconds)."""
    if not origin:
        return expr
    since, out, position = f"{origin!r}", [], 0
    stamps: list[bool] = []
    for found in _TOKEN.finditer(expr):
        out.append(expr[position : found.start()])
        position = found.end()
        out.append(_token(found, origin, since, stamps))
    return "".join((*out, expr[position:]))


def _token(found: re.Match[str], origin: float, since: str, stamps: list[bool]) -> str:
    match found.lastgroup:
        case "at" | "time":
            return f"@ {float(found['time']) - origin:.3f}"
        case "now":
            return f"(time() + {since})"
        case "part" | "name":
            return f"{found['name']}(vector(time() + {since}))"
        case "stamp":
            stamps.append(True)
            return "(timestamp("
        case "open":
            stamps.append(False)
        case "close" if stamps and stamps.pop():
            return f") + {since})"
    return found[0]
