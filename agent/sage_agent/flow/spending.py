"""Budgets: what a request may cost is set aside before a model is asked, and replaced by what it did cost."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

import sage_obs
from sage_agent.callers import Caller
from sage_agent.flow.config import BudgetsConfig
from sage_agent.llm.bill import Bill
from sage_agent.llm.estimates import at_most
from sage_agent.llm.providers.base import Prompt
from sage_agent.messages import new_message_id
from sage_agent.problems import RETRY_SOON_SECONDS, Problem
from sage_agent.state.base import Budget, Budgets, StateError
from sage_obs.conventions import BUDGET_USED, LLM_BUDGET, ErrorType

_log = logging.getLogger("sage_agent")
_SPARE_SECONDS: Final = 60.0
"""How long after a request's deadline what it set aside waits to be settled."""


class Spending:
    """Sets aside and settles. `asked` are the providers and models that may be asked, the dearest of which counts."""

    def __init__(self, budgets: Budgets, config: BudgetsConfig, *, agent: str, asked: Sequence[tuple[str, str]]) -> None:
        self._budgets = budgets
        self._config = config
        self._agent = agent
        self._asked = tuple(asked)
        self._settling: set[asyncio.Task[None]] = set()

    def expose(self) -> None:
        """Show the agent's own budget."""
        if self._config.agent:
            sage_obs.series(LLM_BUDGET, f"{self._config.period:g}s").set(self._config.agent)

    async def reserve(self, prompt: Prompt, caller: Caller, *, seconds: float) -> str:
        """Set aside what a request that may take so many seconds can cost; returns under what name. Raises Problem (429, 503)."""
        call = new_message_id()
        budgets = self._of(caller)
        try:
            reserved = await self._budgets.reserve(call, self._at_most(prompt), budgets, seconds=seconds + _SPARE_SECONDS)
        except StateError as exc:
            _log.warning("a budget cannot be asked", extra={"reason": exc.message})
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                ErrorType.UNAVAILABLE,
                "Budgets cannot be asked now; try again.",
                retry_after=RETRY_SOON_SECONDS,
            ) from exc
        if not reserved.allowed:
            whose = reserved.refused_by.partition(":")[0]
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                ErrorType.RATE_LIMITED,
                f"The budget of this {whose} is spent.",
                retry_after=max(RETRY_SOON_SECONDS, math.ceil(reserved.retry_after)),
            )
        return call

    def settle(self, call: str, bill: Bill, caller: Caller) -> None:
        """Replace what was set aside by what was spent, without keeping anybody waiting.

        What a call would have said that was given up is not known, and nobody gets it back: then what was set aside stays spent.
        """
        if not bill.certain:
            return
        task = asyncio.get_running_loop().create_task(self._settle(call, bill.usd, caller))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def close(self) -> None:
        """Wait until everything is settled."""
        if self._settling:
            await asyncio.wait(self._settling)

    async def _settle(self, call: str, usd: float, caller: Caller) -> None:
        try:
            await self._budgets.settle(call, usd)
            if caller.tenant in self._config.shown and self._config.tenant:
                tenant = next(budget for budget in self._of(caller) if budget.name.startswith("tenant:"))
                sage_obs.series(BUDGET_USED, caller.tenant).set(await self._budgets.used(tenant) / tenant.usd)
        except StateError as exc:
            _log.warning("what a request has cost is not settled", extra={"reason": exc.message})

    def _of(self, caller: Caller) -> list[Budget]:
        """The budgets that a caller's requests are on."""
        bounds = (
            (f"agent:{self._agent}", self._config.agent),
            (f"tenant:{caller.tenant}", self._config.tenant),
            (f"user:{caller.owner}", self._config.user),
        )
        return [Budget(name, usd, self._config.period) for name, usd in bounds if usd]

    def _at_most(self, prompt: Prompt) -> float:
        """What the dearest model costs. Raises Problem where one has no price and must have one."""
        asked = at_most(prompt)
        costs = [sage_obs.cost_of(provider, model, input=asked, output=prompt.max_tokens) for provider, model in self._asked]
        known = [cost for cost in costs if cost is not None]
        if len(known) < len(costs) and not self._config.allow_unknown:
            raise Problem(HTTPStatus.BAD_GATEWAY, ErrorType.INTERNAL, "A model that may be asked has no price, and there is a budget.")
        return max(known, default=0.0)
