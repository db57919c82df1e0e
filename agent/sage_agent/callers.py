"""Who asks."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import Final

from sage_agent.state.base import Rate


class Role(enum.IntEnum):
    """What a caller may do; a higher one may do all that a lower one may."""

    VIEWER = 1
    """Look: runtime information, and over A2A the tasks of its tenant, of which those who make them see their own only."""
    OPERATOR = 2
    """Send messages."""
    ADMIN = 3
    """Change the running agent."""


@dataclass(frozen=True, slots=True)
class Caller:
    """An identified caller: its id, whose data it sees, what it may do, and how it was identified (`api_key`, `jwt`, `mtls`, `did`).

    `rate` is how often it may come where that is its own, None where its role says so.
    """

    id: str
    tenant: str = ""
    role: Role = Role.OPERATOR
    how: str = "anonymous"
    rate: Rate | None = None

    @property
    def owner(self) -> str:
        """Tenant and id as one text that no other pair makes, whatever they hold: what limits, budgets and tasks are kept under."""
        return json.dumps([self.tenant, self.id])


ANONYMOUS: Final = Caller("anonymous")
"""Anybody, where callers are not identified."""
