from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from sage_obs.conventions import Severity
from sage_obs.platforms.base import Release
from sage_obs.platforms.ledger import Standing
from sage_obs.runbooks.assess import severity
from sage_obs.runbooks.attribution import attribute
from sage_obs.runbooks.records import Finding, overall
from sage_obs.runbooks.target import LAST_KNOWN_GOOD, choose
from sage_obs.signals.base import NO_FACTS, Facts, ProviderFailures
from sage_obs.slo.triggers import TRIGGERS, Measurement, Verdict
from tests.support.runbooks import BAD, FAILING, GOOD, HEALTHY, NOTHING, Scene

UPSTREAM = Facts(40.0, (), (ProviderFailures("scripted", "server_error", 0.33, 400.0),))
SLOW = {**HEALTHY, "latency": Measurement(3.0, 400)}
DOWN = {**HEALTHY, "health": Measurement(1.0, 1)}


def _found(measured: Mapping[str, Measurement], version: str = "1.1.0") -> tuple[Finding, ...]:
    return tuple(Finding.of(one, version, measured[one.slug]) for one in TRIGGERS)


@pytest.mark.parametrize(
    ("measured", "level", "words"),
    [
        (FAILING, Severity.P1, "customers are hurt: Customer impact 33 % > 10 % on 400 samples"),
        (DOWN, Severity.P1, "customers are hurt: Health checks 100 %"),
        (SLOW, Severity.P2, "not measurably hurt: Latency 3 times > 2 times"),
        ({**HEALTHY, "health": Measurement(0.5, 2)}, Severity.P2, "Health checks 50 %"),
        ({**HEALTHY, "error-rate": Measurement(0.02, 400)}, Severity.P3, "the objective is 0.1 %"),
        (HEALTHY, None, "no trigger fails"),
        (NOTHING, None, "too little is known to say"),
    ],
    ids=["failing", "all down", "slow", "half down", "objective missed", "healthy", "no data"],
)
def test_severity_comes_from_what_was_measured(measured: Mapping[str, Measurement], level: Severity | None, words: str) -> None:
    """P1 where people are hurt, P2 where another trigger fails, P3 where only the objective is missed."""
    assert severity(_found(measured))[0] is level
    assert words in severity(_found(measured))[1]


def test_unknown_is_neither_healthy_nor_broken() -> None:
    """One failure decides; else one unknown, or nothing measured, is unknown."""
    assert overall(()) is Verdict.UNKNOWN
    assert overall(_found({**HEALTHY, "latency": NOTHING["latency"]})) is Verdict.UNKNOWN
    assert overall(_found({**FAILING, "latency": NOTHING["latency"]})) is Verdict.FAIL
    assert overall(_found(HEALTHY)) is Verdict.PASS


def test_a_release_whose_predecessor_passed_can_be_the_cause(tmp_path: Path) -> None:
    """Before it all was well, now a provider fails: that alone does not acquit the release."""
    scene = Scene(tmp_path)
    scene.signals.facts_now = UPSTREAM
    assert attribute(scene.world, BAD, _found(FAILING)).verdict is Verdict.PASS


def test_a_regression_that_predates_the_release_is_not_its_fault(tmp_path: Path) -> None:
    """The previous release failed the same triggers just before; the reason names it and when."""
    scene = Scene(tmp_path)
    scene.signals.past = {"1.0.0": FAILING}
    said = attribute(scene.world, BAD, _found(FAILING))
    assert said.verdict is Verdict.FAIL
    assert "1.0.0 had Error rate 33 % > 5 %" in said.reason


def test_a_neighbour_that_fails_the_same_acquits_the_release(tmp_path: Path) -> None:
    """Two releases side by side with the same symptom have another cause in common."""
    scene = Scene(tmp_path)
    scene.signals.live = ("1.1.0", "1.0.0")
    scene.signals.now["1.0.0"] = FAILING
    said = attribute(scene.world, BAD, _found(FAILING))
    assert said.verdict is Verdict.FAIL
    assert "1.0.0, which runs beside it, fails too" in said.reason


def test_a_provider_that_failed_before_the_release_explains_failed_requests_only(tmp_path: Path) -> None:
    """The outage is older than the release; a latency regression on top of it is still the release's."""
    scene = Scene(tmp_path)
    scene.signals.facts_now = scene.signals.facts_past = UPSTREAM
    assert attribute(scene.world, BAD, _found(FAILING)).verdict is Verdict.FAIL
    both = {**FAILING, "latency": SLOW["latency"]}
    assert attribute(scene.world, BAD, _found(both)).verdict is Verdict.PASS


@pytest.mark.parametrize(
    "before",
    [
        ProviderFailures("scripted", "server_error", 0.33, 3.0),
        ProviderFailures("scripted", "server_error", 0.01, 400.0),
        ProviderFailures("scripted", "invalid_request", 0.33, 400.0),
        ProviderFailures("another", "server_error", 0.33, 400.0),
    ],
    ids=["few calls", "small share", "our own requests", "another provider"],
)
def test_what_proves_no_outage_does_not_acquit(tmp_path: Path, before: ProviderFailures) -> None:
    """Too few calls, too small a share, requests that were wrong, or a provider that is well now prove nothing."""
    scene = Scene(tmp_path)
    scene.signals.facts_now = UPSTREAM
    scene.signals.facts_past = replace(NO_FACTS, providers=(before,))
    assert attribute(scene.world, BAD, _found(FAILING)).verdict is Verdict.PASS


@pytest.mark.parametrize("past", [{}, {"1.0.0": NOTHING}], ids=["nothing seen", "no samples"])
def test_without_a_past_the_attribution_is_unknown(tmp_path: Path, past: dict[str, Mapping[str, Measurement]]) -> None:
    """No data before the release: neither its fault nor not."""
    scene = Scene(tmp_path)
    scene.signals.past = dict(past)
    assert attribute(scene.world, BAD, _found(FAILING)).verdict is Verdict.UNKNOWN
    assert attribute(scene.world, replace(BAD, deployed_at=None), _found(FAILING)).verdict is Verdict.UNKNOWN
    assert attribute(scene.world, None, _found(FAILING)).verdict is Verdict.UNKNOWN
    assert attribute(scene.world, BAD, _found(HEALTHY)).verdict is Verdict.UNKNOWN


def test_the_target_is_the_last_release_proven_good_not_the_previous_one(tmp_path: Path) -> None:
    """An unproven release between the good one and the bad one is passed over."""
    scene = Scene(tmp_path)
    scene.platform.stored = (BAD, Release("1.0.5", "sha256:unproven", 950.0), GOOD)
    assert choose(scene.platform, scene.ledger, current=BAD, to=LAST_KNOWN_GOOD).target == GOOD


def test_of_several_good_ones_the_last_deployed_is_chosen(tmp_path: Path) -> None:
    """In whatever order they were proven."""
    scene = Scene(tmp_path)
    later = Release("1.0.5", "sha256:later", 950.0)
    scene.platform.stored = (BAD, later, GOOD)
    scene.ledger.mark(later, Standing.GOOD, by="test", reason="it baked")
    scene.ledger.mark(GOOD, Standing.BAD, by="test", reason="mistake")
    scene.ledger.mark(GOOD, Standing.GOOD, by="test", reason="it baked again")
    assert choose(scene.platform, scene.ledger, current=BAD, to=LAST_KNOWN_GOOD).target == later


def test_what_runs_now_is_no_way_back_even_if_it_was_proven_good(tmp_path: Path) -> None:
    """A release that went bad after it had baked is left for the good one before it."""
    scene = Scene(tmp_path)
    scene.ledger.mark(BAD, Standing.GOOD, by="test", reason="it baked")
    assert choose(scene.platform, scene.ledger, current=BAD, to=LAST_KNOWN_GOOD).target == GOOD


def test_a_corrupt_release_is_never_a_target_and_is_named(tmp_path: Path) -> None:
    """With another good one left that is taken; the damage is reported either way."""
    scene = Scene(tmp_path)
    scene.platform.corrupt = frozenset({"1.0.0"})
    alone = choose(scene.platform, scene.ledger, current=BAD, to=LAST_KNOWN_GOOD)
    assert alone.target is None
    assert alone.damaged == ("Release folder 1.0.0 is corrupt.",)
    older = Release("0.9.0", "sha256:older", 800.0)
    scene.platform.stored = (BAD, GOOD, older)
    scene.ledger.mark(older, Standing.GOOD, by="test", reason="it baked")
    assert choose(scene.platform, scene.ledger, current=BAD, to=LAST_KNOWN_GOOD).target == older


def test_another_content_under_a_proven_name_is_not_proven(tmp_path: Path) -> None:
    """The ledger judges digests, not names."""
    scene = Scene(tmp_path)
    scene.platform.stored = (BAD, Release("1.0.0", "sha256:swapped", 900.0))
    assert choose(scene.platform, scene.ledger, current=BAD, to=LAST_KNOWN_GOOD).target is None


def test_a_named_target_comes_with_its_standing(tmp_path: Path) -> None:
    """A person's wish is looked up too: known bad, corrupt and missing ones are told apart."""
    scene = Scene(tmp_path)
    assert choose(scene.platform, scene.ledger, current=BAD, to="1.0.0").standing is Standing.GOOD
    scene.ledger.mark(GOOD, Standing.BAD, by="test", reason="it failed")
    assert choose(scene.platform, scene.ledger, current=BAD, to="1.0.0").standing is Standing.BAD
    assert choose(scene.platform, scene.ledger, current=BAD, to="9.9.9").damaged == ("There is no release 9.9.9.",)
