"""Secrets out of text that is about to be kept."""

from __future__ import annotations

import re
from typing import Final

MASK: Final = "********"
_NAMES: Final = r"(?:api[_-]?key|access[_-]?key|secret[\w-]*|token|passw(?:or)?d|passphrase|credentials?|authorization|cookie|set-cookie)"
_PATTERNS: Final = (
    # name=value, "name": "value", Name: value; a header's scheme (Bearer, Basic) goes with its value
    (re.compile(rf"(?i)(\b[\w-]*{_NAMES}[\"']?\s*[:=]\s*)(?:(?:bearer|basic)\s+)?(\"[^\"]*\"|'[^']*'|[^\s,;&}}\]\"']+)"), rf"\1{MASK}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {MASK}"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), MASK),
    (re.compile(r"\b(?:sk|pk|rk|ghp|gho|ghs|xox[abprs]|AKIA|AIza)[-_]?[A-Za-z0-9_-]{12,}"), MASK),
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/:@]*):[^\s/@]+@"), rf"\1:{MASK}@"),
    (re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL), MASK),
)


def redact(text: str) -> str:
    """The text with what looks like a credential masked: named values, bearer tokens, JWTs, well-known key forms, URLs, private keys."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
