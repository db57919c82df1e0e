"""Obvious secrets out of finished log lines.

It works on the encoded line, after escaping: what is replaced never holds a bare quote or half an escape, so JSON stays JSON. Every
quantifier is bounded, so the time is linear in the length of the line.
"""

from __future__ import annotations

import re
from typing import Final

_HIDDEN: Final = b"[REDACTED]"
_NAMES: Final = rb"api[_-]?key|x-api-key|password|passwd|client[_-]?secret|secret[_-]?key|access[_-]?token|refresh[_-]?token|authorization"

_NAMED_IN_JSON: Final = re.compile(rb"(?i)(\"[\w.-]{0,64}(?:" + _NAMES + rb")\"\s?:\s?\")(?:[^\"\\]|\\.){1,4096}")
_NAMED_IN_TEXT: Final = re.compile(rb"(?i)(\b[\w.-]{0,64}(?:" + _NAMES + rb")(?:\\[\"'])?\s?[=:]\s?(?:\\[\"'])?)[^\s\"'\\,;&\[]{4,4096}")
_NAMED: Final = ((_NAMED_IN_JSON, rb"\1" + _HIDDEN), (_NAMED_IN_TEXT, rb"\1" + _HIDDEN))

_RULES: Final[tuple[tuple[bytes, tuple[tuple[re.Pattern[bytes], bytes], ...]], ...]] = (
    (b"bearer", ((re.compile(rb"(?i)\b(bearer\s{1,4})[a-z0-9._~+/=-]{16,4096}"), rb"\1" + _HIDDEN),)),
    (b"basic", ((re.compile(rb"(?i)\b(basic\s{1,4})[a-z0-9+/=_-]{16,4096}"), rb"\1" + _HIDDEN),)),
    (b"sk-", ((re.compile(rb"\b(sk-)[A-Za-z0-9_-]{16,512}"), rb"\1" + _HIDDEN),)),
    (b"://", ((re.compile(rb"(://[^\s:/@\"\\]{0,128}:)[^\s/\"\\]{1,512}@"), rb"\1" + _HIDDEN + b"@"),)),
    (b"key", _NAMED),
    (b"passw", _NAMED),
    (b"secret", _NAMED),
    (b"token", _NAMED),
    (b"authorization", _NAMED),
)
"""(what the lower-cased line must hold for the patterns to be tried, patterns with replacements): the word saves most lines the rest."""


def redact(line: bytes) -> bytes:
    """The line without bearer tokens, `sk-` keys, passwords in URLs and values named like secrets."""
    lowered = line.lower()
    for word, patterns in _RULES:
        if word in lowered:
            for pattern, replacement in patterns:
                line = pattern.sub(replacement, line)
    return line
