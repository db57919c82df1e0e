"""What a store promises holds in whatever order things happen, and however long it takes: against a plain model of each promise."""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from sage_agent.messages import Turn
from sage_agent.state.base import Budget, Rate, SessionKey, State
from sage_agent.state.memory import memory_state
from sage_agent.state.sqlite import sqlite_state

_NAMES = st.sampled_from(["a", "b", "\x00", "\ud800"])
_SECONDS = st.floats(0.01, 20.0)
_MONEY = st.floats(0.0, 3.0)
_RATE = Rate(per_second=0.5, burst=5)
_BUDGETS = {name: Budget(name, usd, 30.0) for name, usd in (("a", 2.0), ("b", 5.0), ("\x00", 1.0), ("\ud800", 3.0))}


class Promises(RuleBasedStateMachine):
    """A store whose clock the test turns, and what it must have done."""

    kind = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.loop = asyncio.new_event_loop()
        self.admitted: dict[str, list[tuple[float, int]]] = defaultdict(list)
        self.nonces: dict[tuple[str, str], float] = {}
        self.periods: dict[str, tuple[float, float]] = {}
        self.reserved: dict[str, tuple[float, float, list[tuple[str, float]]]] = {}
        self.calls = 0
        self.turns: dict[str, tuple[float, list[str]]] = {}

    @initialize()
    def open(self) -> None:
        """Open it."""
        self.folder = tempfile.TemporaryDirectory()
        self.state = self._open()

    def _open(self) -> State:
        def clock() -> float:
            return self.now

        state = memory_state(clock) if self.kind == "memory" else sqlite_state(Path(self.folder.name) / "s.db", timeout=5.0, clock=clock)
        self.run(state.store.open())
        return state

    def run(self, asked: Any) -> Any:
        """The result of an operation."""
        return self.loop.run_until_complete(asked)

    @rule(seconds=_SECONDS)
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule()
    def reopen(self) -> None:
        """The process ends and another begins; memory would forget."""
        if self.kind != "memory":
            self.run(self.state.store.close())
            self.state = self._open()

    @rule(name=_NAMES, cost=st.integers(1, 3), times=st.integers(1, 8))
    def take(self, name: str, cost: int, times: int) -> None:
        """Several ask for a limit at the same time; what is refused says when, and is right to the second."""

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*(self.state.limits.take(name, _RATE, cost=cost) for _ in range(times)))

        for taken in self.run(all_of_them()):
            if taken.allowed:
                self.admitted[name].append((self.now, cost))
            else:
                assert taken.retry_after > 0
                assert taken.remaining < cost

    @rule(name=_NAMES)
    def come_back(self, name: str) -> None:
        """Who waits as long as it was told is admitted."""
        refused = self.run(self.state.limits.take(name, _RATE, cost=5))
        if refused.allowed:
            self.admitted[name].append((self.now, 5))
            return
        self.now += refused.retry_after + 1e-3
        assert self.run(self.state.limits.take(name, _RATE, cost=5)).allowed
        self.admitted[name].append((self.now, 5))

    @invariant()
    def never_more_than_the_rate(self) -> None:
        """In any stretch of time at most `burst` and what came back meanwhile was admitted."""
        for taken in self.admitted.values():
            for first in range(max(0, len(taken) - 30), len(taken)):
                total = sum(cost for _, cost in taken[first:])
                assert total <= _RATE.burst + (taken[-1][0] - taken[first][0]) * _RATE.per_second + 1e-3

    @rule(scope=_NAMES, nonce=_NAMES, seconds=_SECONDS)
    def claim(self, scope: str, nonce: str, seconds: float) -> None:
        """A nonce is had once in its time."""
        until = self.nonces.get((scope, nonce), 0.0)
        assume(abs(until - self.now) > 1e-6)
        claimed = self.run(self.state.nonces.claim(scope, nonce, seconds=seconds))
        assert claimed == (until <= self.now)
        if claimed:
            self.nonces[scope, nonce] = self.now + seconds

    @rule(names=st.lists(_NAMES, min_size=1, max_size=3, unique=True), usd=_MONEY, seconds=st.floats(1.0, 90.0))
    def reserve(self, names: list[str], usd: float, seconds: float) -> None:
        """Money is set aside in all budgets or in none, exactly where all have it."""
        self.calls += 1
        call = f"call {self.calls}"
        spent = {name: self._period(name) for name in names}
        enough = all(value[1] + usd <= _BUDGETS[name].usd for name, value in spent.items())
        assume(all(abs(value[1] + usd - _BUDGETS[name].usd) > 1e-6 for name, value in spent.items()))
        for _ in range(2):
            allowed = self.run(self.state.budgets.reserve(call, usd, [_BUDGETS[name] for name in names], seconds=seconds)).allowed
            assert allowed == enough
        if enough:
            for name, (until, before) in spent.items():
                self.periods[name] = (until, before + usd)
            self.reserved[call] = (usd, self.now + seconds, [(name, until) for name, (until, _) in spent.items()])

    @rule(back=st.integers(-1, 4), usd=_MONEY)
    def settle(self, back: int, usd: float) -> None:
        """The price replaces what was set aside, once, in the period it was set aside in, unless that took too long."""
        call = f"call {self.calls - back}"
        self.run(self.state.budgets.settle(call, usd))
        self.run(self.state.budgets.settle(call, usd))
        if call not in self.reserved:
            return
        reserved, until, names = self.reserved.pop(call)
        if until <= self.now:
            return
        for name, period in names:
            if self.periods[name][0] == period:
                self.periods[name] = (period, max(0.0, self.periods[name][1] + usd - reserved))

    def _period(self, name: str) -> tuple[float, float]:
        until, spent = self.periods.get(name, (0.0, 0.0))
        return (until, spent) if until > self.now else (self.now + _BUDGETS[name].seconds, 0.0)

    @invariant()
    def what_is_used_is_what_was_spent_and_set_aside(self) -> None:
        """Nothing is counted twice, and nothing forgotten."""
        for name, budget in _BUDGETS.items():
            assert self.run(self.state.budgets.used(budget)) == pytest.approx(self._period(name)[1], abs=1e-6)

    @rule(name=_NAMES, texts=st.lists(st.text(max_size=3), min_size=1, max_size=4), seconds=_SECONDS)
    def say(self, name: str, texts: list[str], seconds: float) -> None:
        """The last six turns are kept for their time."""
        until, before = self.turns.get(name, (0.0, []))
        kept = [*(before if until > self.now else []), *texts][-6:]
        self.run(self.state.sessions.append(SessionKey("t", "u", name), [Turn("user", text) for text in texts], keep=6, seconds=seconds))
        self.turns[name] = (self.now + seconds, kept)

    @invariant()
    def every_conversation_is_there_until_it_expires(self) -> None:
        """An export is all that was said and not forgotten, nothing else."""
        said = {name: texts for name, (until, texts) in self.turns.items() if until > self.now}
        exported = self.run(self.state.sessions.export("t", "u"))
        assert {name: [turn.text for turn in turns] for name, turns in exported.items()} == said

    def teardown(self) -> None:
        """Close it."""
        if hasattr(self, "state"):
            self.run(self.state.store.close())
            self.folder.cleanup()
        self.loop.close()


class SqlitePromises(Promises):
    """The same in a file."""

    kind = "sqlite"


@pytest.mark.parametrize(("machine", "examples"), [(Promises, 60), (SqlitePromises, 25)], ids=["memory", "sqlite"])
def test_promises_hold_in_whatever_order(machine: type[Promises], examples: int) -> None:
    """Limits, nonces, budgets and conversations against their models, with clocks that jump and processes that end."""
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)),
    )
