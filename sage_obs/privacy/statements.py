"""Database statements without the values somebody has written into them.

What is bound as a parameter never stands in the text. What was put into it by hand does: strings, numbers, and whatever a comment says.
Every quantifier is bounded or possessive, for the reason given at `sage_obs.privacy.redaction`.
"""

from __future__ import annotations

import re
from typing import Final

from sage_obs.privacy.redaction import redact_text

_LONGEST: Final = 4096
"""Characters of a statement that are kept; a generated one may have megabytes."""
_COMMENT: Final = r"--[^\r\n]*+|/\*(?:[^*]|\*(?!/))*+(?:\*/)?"
_DOLLARS: Final = r"(?P<dollars>\$(?:[A-Za-z_]\w{0,62})?\$)(?:(?!(?P=dollars)).)*+(?P=dollars)?"
"""PostgreSQL's strings between tags of the writer's choice."""
_STRING: Final = r"\b[eE]'(?:[^'\\]|''|\\.)*+(?:'|\\?\Z)|(?:\b[bBxXnN])?'(?:[^'\\]|''|\\[^'])*+'|'.*+"
"""Where a backslash stands before a quote, systems and their settings differ about where the string ends: the rest is left out."""
_NUMBER: Final = r"(?<![\w$:%.\"])(?:0[xX][0-9a-fA-F]++|\d++(?:\.\d*+)?(?:[eE][+-]?\d++)?|\.\d++)"
"""Not the digits of `t1`, `$1`, `:1` or `"t"."2"`."""
_QUOTED: Final = r"\"(?:[^\"]|\"\")*+\"?"
_BACKTICKS: Final = r"`[^`]*+`?"


def _parts(comment: str) -> re.Pattern[str]:
    values = f"{_DOLLARS}|{_STRING}|{_NUMBER}"
    return re.compile(f"(?P<comment>{comment})|(?P<value>{values})|(?P<quoted>{_QUOTED})|(?P<kept>{_BACKTICKS})", re.ASCII | re.DOTALL)


_PARTS: Final = _parts(_COMMENT)
_PARTS_OF: Final = dict.fromkeys(("mysql", "mariadb"), _parts(_COMMENT + r"|#[^\r\n]*+"))
"""Where a hash begins a comment; elsewhere it is an operator."""
_IDENTIFIERS: Final = frozenset({"postgresql", "oracle", "cockroachdb", "redshift"})
"""Systems in which double quotes never hold a string; in MySQL they do, and SQLite takes them for one where no column has the name."""


def without_values(statement: str, system: str) -> str:
    """A statement of a database `system`, as OpenTelemetry names it, with `?` for each value in its text and without comments."""
    quoted_is_a_name = system in _IDENTIFIERS

    def put(found: re.Match[str]) -> str:
        if found["comment"] is not None:
            return " "
        if found["kept"] is not None or (found["quoted"] is not None and quoted_is_a_name):
            return found[0]
        return "?"

    return redact_text(_PARTS_OF.get(system, _PARTS).sub(put, statement[:_LONGEST]).strip())
