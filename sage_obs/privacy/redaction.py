"""Secrets out of anything that is about to be written: log lines, evidence, spans.

It works on encoded text, JSON or not. In JSON it keeps JSON: a replacement never takes a bare quote or half an escape. Every
quantifier is bounded or possessive, so the time is linear in the length of the text whatever it says: Python's `re` holds the
interpreter's lock, and a request path made to slow it down must not stop a rollback.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

MASK: Final = "[REDACTED]"
_MASK: Final = MASK.encode()

_WORD: Final = (
    rb"(?:api[_-]?key|access[_-]?key|private[_-]?key|secret|token(?!s|iz)|passw(?:or)?d|pwd|passphrase"
    rb"|credential|authorization|cookie)[\w-]{0,32}"
)
"""A name that says its value is secret, whatever stands before it."""
_GAP: Final = rb"(?:\s|\\[nrt]){0,4}"
"""Blanks before a value, some of which JSON writes as two characters."""
_PLAIN_NAME: Final = _WORD + rb"\s{0,4}[=:]" + _GAP
_QUOTED_NAME: Final = _WORD + rb"\\{0,7}[\"']\s{0,4}[=:]" + _GAP
_NAME: Final = _WORD + rb"\\{0,7}[\"']?\s{0,4}[=:]" + _GAP
_FLAG: Final = rb"true\b|false\b|null\b|none\b"
_NUMBER: Final = rb"-?\d++(?:\.\d++)?(?:e[+-]?\d++)?(?![\w.])"
_COUNT: Final = rb"\d{1,6}(?:\.\d{1,6})?(?![\w.])"
"""A number too short to be a secret: what stands under `token_count`."""
_QUOTED: Final = rb"\"(?:[^\"\\]|\\.)*+"
_SINGLE_QUOTED: Final = rb"'[^'\"\\]*+(?:\\[^\"][^'\"\\]*+)*+"
_ESCAPED_END: Final = rb"[^\"'\\]*+(?:\\++[^\"'\\][^\"'\\]*+)*+"
_ESCAPED: Final = rb"(\\++[\"'])" + _ESCAPED_END
"""A quoted value inside a quoted value, up to the backslashes of its closing quote."""
_LIST: Final = rb"\[(?:\s{0,4}\"(?:[^\"\\]|\\.)*+\"\s{0,4},?)++\]"
_ESCAPED_LIST: Final = rb"\[(?:[^\[\]\"\\]|\\++[^\s])*+\]"
_VALUE: Final = rb"[^\s\"'\\,;&\[\]{}()<>]{4,}+"
_SCHEME: Final = rb"(?:bearer|basic)\s{1,4}" + _VALUE


_CLOSING: Final = rb"\"\s{0,4}(?:[,:]\s{0,4}[\"\[{tfn\d-]|[}\]]\s{0,4}(?:[,}\]\s]|\Z)|\Z)"
"""A quote by which JSON ends a string, by what follows it."""


def _named(name: bytes, value: bytes, replacement: bytes) -> tuple[re.Pattern[bytes], bytes]:
    return re.compile(rb"(?i)(" + name + rb")" + value), replacement


_NAMED: Final = (
    (re.compile(rb"(?i)(cookie\s{0,4}[:=]\s{0,4})(?![\s\"'\\\[])[^\"'\\\r\n]++"), rb"\1" + _MASK),
    _named(_NAME, _QUOTED, rb'\1"' + _MASK),
    _named(_NAME, _SINGLE_QUOTED, rb"\1'" + _MASK),
    _named(_NAME, _ESCAPED, rb"\1\2" + _MASK),
    _named(_NAME, _LIST, rb"\1[]"),
    _named(_NAME, _ESCAPED_LIST, rb"\1[]"),
    _named(_NAME, _SCHEME, rb"\1" + _MASK),
    _named(_QUOTED_NAME, rb"(?!" + _COUNT + rb")" + _NUMBER, rb"\g<1>0"),
    _named(_QUOTED_NAME, rb"(?!" + _NUMBER + rb"|" + _FLAG + rb")" + _VALUE, rb"\1" + _MASK),
    _named(_PLAIN_NAME, rb"(?!" + _COUNT + rb"|" + _FLAG + rb")" + _VALUE, rb"\1" + _MASK),
)
_NAMED_IN_JSON: Final = (
    _NAMED[0],
    _named(_WORD + rb"\"\s{0,4}:\s{0,4}", _QUOTED, rb'\1"' + _MASK),
    _named(_NAME, rb"(?!" + _CLOSING + rb")" + _QUOTED, rb'\1"' + _MASK),
    _NAMED[2],
    _named(_NAME, rb"((?:\\\\)*+\\\"|\\++')" + _ESCAPED_END, rb"\1\2" + _MASK),
    *_NAMED[4:],
)
"""The same for JSON, where a string may end in such a name: `"message":"Enter password:","n":1` has no value for it, and an even number of
backslashes before a quote escape each other and not the quote."""
_BEGIN: Final = rb"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----"
_END: Final = rb"-----END [A-Z ]{0,32}PRIVATE KEY-----"
_KNOWN: Final = rb"(?:(?<![A-Za-z0-9])|(?<=\\[nrtbf]))"
"""The beginning of a word; JSON writes the line break before it as a backslash and a letter."""

_RULES: Final[tuple[tuple[tuple[bytes, ...], tuple[tuple[re.Pattern[bytes], bytes], ...]], ...]] = (
    ((b"key", b"secret", b"token", b"pass", b"pwd", b"credential", b"authorization", b"cookie"), _NAMED),
    ((b"bearer", b"basic"), ((re.compile(rb"(?i)" + _KNOWN + rb"((?:bearer|basic)\s{1,4})[a-z0-9._~+/=-]{12,}+"), rb"\1" + _MASK),)),
    ((b"sk-",), ((re.compile(_KNOWN + rb"(sk-)[\w-]{16,}+"), rb"\1" + _MASK),)),
    ((b"eyj",), ((re.compile(_KNOWN + rb"eyJ[\w-]{4,}+\.[\w-]{4,}+(?:\.[\w-]*+)?"), _MASK),)),
    (
        (b"gh", b"github_pat_", b"xox", b"akia", b"aiza"),
        (
            (
                re.compile(
                    _KNOWN + rb"(?:gh[pousr]_\w{8,}+|github_pat_\w{8,}+|xox[abeoprs]-[\w-]{8,}+|AKIA[0-9A-Z]{12,}+|AIza[\w-]{16,}+)",
                ),
                _MASK,
            ),
        ),
    ),
    ((b"://",), ((re.compile(rb"(://[^\s:/@\"'\\]{0,128}+:)[^\s/@\"'\\]{1,512}+@"), rb"\1" + _MASK + b"@"),)),
    ((b"private key-----",), ((re.compile(_BEGIN + rb"(?:(?!-----END)(?:[^\"\\]|\\++[nr]))*+(?:" + _END + rb")?"), _MASK),)),
)
"""(words, patterns with replacements): the patterns are tried where the lower-cased text holds one of the words, which most do not."""
_JSON_RULES: Final = ((_RULES[0][0], _NAMED_IN_JSON), *_RULES[1:])
_JSON_BEGINS: Final = (b"{", b"[", b'"')
_RARE: Final = "zqjxk:-/bgpwyfvhmucdl"
"""Characters that are rare in English text and in JSON, the rarest first."""


def any_of(words: Iterable[str]) -> re.Pattern[bytes]:
    """Finds what has any of these words in it, each by its rarest character: most of a text is passed over without a look at a word."""
    found: dict[str, list[str]] = {}
    for word in words:
        at = min(range(len(word)), key=lambda place: _RARE.find(word[place]) % 100)  # -1, for a character that is not rare, is 99
        before = f"(?<={re.escape(word[: at + 1])})" if at else ""
        found.setdefault(word[at], []).append(before + re.escape(word[at + 1 :]))
    return re.compile("|".join(f"{re.escape(rare)}(?:{'|'.join(rest)})" for rare, rest in found.items()).encode())


_TELLING: Final = any_of(word.decode() for words, _ in _RULES for word in words)


def telling(data: bytes) -> bool:
    """Whether anything in a text hints at a secret; `redact` changes nothing in one where nothing does."""
    return _TELLING.search(data.lower()) is not None


def redact(data: bytes) -> bytes:
    """The UTF-8 text without what looks like a credential.

    Values under telling names (also in lists and in JSON within JSON), bearer and basic credentials, JWTs, well-known key forms,
    passwords in URLs, private keys.
    """
    lowered = data.lower()
    if _TELLING.search(lowered) is None:
        return data
    for words, patterns in _JSON_RULES if data.startswith(_JSON_BEGINS) else _RULES:
        if any(word in lowered for word in words):
            for pattern, replacement in patterns:
                data = pattern.sub(replacement, data)
    return data


_SECRET_NAME: Final = re.compile(rb"(?i)" + _WORD)


def secret_name(name: str) -> bool:
    """Whether the last part of a dotted name says that its value is secret: `http.request.header.authorization`."""
    return _SECRET_NAME.search(name.rpartition(".")[2].encode("utf-8", "surrogatepass")) is not None


def redact_text(text: str) -> str:
    """The same for text."""
    return redact(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")
