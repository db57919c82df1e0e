"""What a provider says is left of its rate limits, in the headers of every answer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

import sage_obs
from sage_obs.conventions import LLM_RATE_REMAINING

_OPENAI: Final = {kind: (f"x-ratelimit-limit-{kind}", f"x-ratelimit-remaining-{kind}") for kind in ("requests", "tokens")}
_ANTHROPIC: Final = {
    kind: (f"anthropic-ratelimit-{name}-limit", f"anthropic-ratelimit-{name}-remaining")
    for kind, name in (("requests", "requests"), ("tokens", "tokens"), ("input_tokens", "input-tokens"), ("output_tokens", "output-tokens"))
}
_HEADERS: Final = {"openai": _OPENAI, "anthropic": _ANTHROPIC}
"""By provider and what is limited: the headers that say how much there is in a period, and how much is left of it."""


def read_quota(provider: str, headers: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    """What is limited, and the ratio 0 to 1 that is left of it. What is no number, or of nothing, is left out."""
    for kind, (limit, remaining) in _HEADERS.get(provider, {}).items():
        whole, left = _number(headers.get(limit)), _number(headers.get(remaining))
        if whole and left is not None:
            yield kind, min(1.0, left / whole)


def show_quota(provider: str, headers: Mapping[str, str]) -> None:
    """Put it on /metrics."""
    for kind, ratio in read_quota(provider, headers):
        sage_obs.series(LLM_RATE_REMAINING, provider, kind).set(ratio)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
