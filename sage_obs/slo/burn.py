"""How fast the error budget is spent, and the pairs of windows that say so early and surely (SRE workbook, chapter 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sage_obs.slo.triggers import AVAILABILITY_OBJECTIVE

BUDGET_DAYS: Final = 30
"""The period of the availability objective."""
ERROR_BUDGET: Final = round(1 - AVAILABILITY_OBJECTIVE, 9)
"""The share of requests that may fail."""
FAST_SHARE: Final = 0.95
"""The share of requests that the latency objective wants under its limit: it is one about a 95th percentile."""


@dataclass(frozen=True, slots=True)
class Burn:
    """A burn rate over a long window, confirmed by a short one; 1 spends the whole budget in its period."""

    long: str
    short: str
    factor: float

    @property
    def slug(self) -> str:
        """Its name."""
        return f"burn-{self.long}"


BURNS: Final = (Burn("1h", "5m", 14.4), Burn("6h", "30m", 6.0), Burn("1d", "2h", 3.0), Burn("3d", "6h", 1.0))
"""2 % of the budget in an hour, 5 % in six, 10 % in a day, 10 % in three days."""
