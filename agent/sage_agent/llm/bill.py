"""What the calls of one request have cost, whether they succeeded or not."""

from __future__ import annotations

import sage_obs
from sage_agent.llm.providers.base import Usage


class Bill:
    """Adds up. `certain` is whether every call said what it used; where one did not, no less than `usd` was spent."""

    __slots__ = ("certain", "usd")

    def __init__(self) -> None:
        self.usd = 0.0
        self.certain = True

    def add(self, provider: str, model: str, usage: Usage) -> None:
        """A call that used so much; one of a model without a price costs nothing that is known."""
        cost = sage_obs.cost_of(
            provider, model, input=usage.input, output=usage.output, cached_read=usage.cached_read, cached_write=usage.cached_write
        )
        self.usd += cost or 0.0

    def unknown(self) -> None:
        """A call that was under way when it was given up, and said nothing."""
        self.certain = False
