from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sage_obs.platforms.base import PlatformState
from sage_obs.platforms.ledger import Standing
from sage_obs.runbooks.model import Allowance
from sage_obs.runbooks.rails import RAILS, Facts, ask
from sage_obs.runbooks.records import Attribution
from sage_obs.runbooks.target import Choice
from sage_obs.slo.triggers import Verdict
from tests.support.runbooks import BAD, GOOD

STATE = PlatformState("sage-agent", BAD, (), converged=True, in_progress=False, detail="")
FACTS = Facts(
    automatic=True,
    automation="on",
    now=1000.0,
    novelty=7200.0,
    rate=300.0,
    triggers=Verdict.FAIL,
    state=STATE,
    choice=Choice(GOOD, Standing.GOOD, "it is proven good"),
    attribution=Attribution(Verdict.PASS, "it passed before"),
    recent=(),
    allowances=(Allowance(1, 3600.0), Allowance(2, 86400.0)),
)


def _refusing(**changes: Any) -> dict[str, str]:
    return {rail.name: rail.reason for rail in ask(replace(FACTS, **changes)) if rail.verdict is Verdict.FAIL}


def _unknown(**changes: Any) -> set[str]:
    return {rail.name for rail in ask(replace(FACTS, **changes)) if rail.verdict is Verdict.UNKNOWN}


def test_a_clear_case_is_refused_by_none() -> None:
    """Every rail answers, and each gives a reason."""
    answers = ask(FACTS)
    assert [rail.verdict for rail in answers] == [Verdict.PASS] * len(RAILS)
    assert all(rail.reason for rail in answers)


@pytest.mark.parametrize(
    ("changes", "name", "reason"),
    [
        ({"automation": "off"}, "kill switch", "SAGE_OBS_AUTOMATION is off"),
        ({"automation": " OFF "}, "kill switch", "SAGE_OBS_AUTOMATION is off"),
        ({"halted": True}, "kill switch", "the state folder has a file automation.off"),
        ({"triggers": Verdict.PASS}, "confirmed", "no trigger fails now"),
        ({"triggers": Verdict.UNKNOWN}, "confirmed", "no trigger fails now"),
        ({"recent": (1.0,)}, "flap guard", "1 automatic rollback(s) within 1 h; 1 are allowed"),
        (
            {"recent": (500.0, 600.0), "now": 40_000.0, "novelty": 1e6},
            "flap guard",
            "2 automatic rollback(s) within 1 d; 2 are allowed",
        ),
        ({"state": replace(STATE, desired=None)}, "known platform", "the platform is unknown"),
        ({"state": replace(STATE, in_progress=True, detail="1.2.0 is starting")}, "settled platform", "1.2.0 is starting"),
        (
            {"choice": Choice(None, Standing.UNPROVEN, "no other release is proven good")},
            "proven target",
            "no other release is proven good",
        ),
        ({"choice": Choice(None, Standing.UNPROVEN, "none", ("1.0.0 is corrupt.",))}, "proven target", "1.0.0 is corrupt"),
        ({"choice": Choice(GOOD, Standing.BAD, "asked for")}, "proven target", "1.0.0 is known to be bad"),
        ({"choice": Choice(GOOD, Standing.UNPROVEN, "asked for")}, "proven target", "1.0.0 is not proven good"),
        ({"choice": Choice(BAD, Standing.GOOD, "asked for")}, "another release", "1.1.0 is what the platform already wants"),
        ({"now": 990.0 + 7501.0}, "recent release", "1.1.0 was deployed 2 h 5 min ago, which is too long"),
        ({"attribution": Attribution(Verdict.FAIL, "it began before")}, "attribution", "it began before"),
    ],
)
def test_each_rail_refuses_its_own_case_and_says_why(changes: dict[str, Any], name: str, reason: str) -> None:
    """The one thing that is wrong is what is named."""
    found = _refusing(**changes)
    assert set(found) == {name}
    assert reason in found[name]


def test_the_allowance_is_per_hour_and_per_day() -> None:
    """One rollback earlier than an hour ago is allowed, a third within a day is not."""
    later = {"now": 5000.0, "novelty": 1e6}
    assert _refusing(recent=(1000.0,), **later) == {}
    assert set(_refusing(recent=(100.0, 1000.0), **later)) == {"flap guard"}


def test_what_binds_machines_does_not_bind_people() -> None:
    """A person may act with the switch off, after other rollbacks, and without a failing trigger, but is told so."""
    changes = {"automatic": False, "automation": "off", "recent": (1.0, 2.0, 3.0), "triggers": Verdict.PASS}
    assert _refusing(**changes) == {}
    assert _unknown(**changes) == {"confirmed"}


def test_what_is_not_known_does_not_refuse() -> None:
    """Unknown is never fail: neither a release of unknown age nor an unknown past refuses by itself."""
    ageless = replace(STATE, desired=replace(BAD, deployed_at=None))
    assert _refusing(state=ageless, attribution=Attribution(Verdict.UNKNOWN, "no past")) == {}
    assert _unknown(state=ageless, attribution=Attribution(Verdict.UNKNOWN, "no past")) == {"recent release", "attribution"}


def test_without_a_platform_exactly_one_rail_refuses() -> None:
    """What cannot be answered then is unknown."""
    assert set(_refusing(state=None, choice=None)) == {"known platform"}
