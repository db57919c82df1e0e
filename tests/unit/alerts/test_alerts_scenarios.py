"""The input series and expectations that promtool gets."""

import math

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from sage_obs.alerts.catalogue import groups
from sage_obs.alerts.links import Links
from sage_obs.alerts.promtest import RELEASES, promtool_files
from sage_obs.alerts.scenarios import Bench, of_releases, of_trigger
from sage_obs.alerts.timeline import Instance, Phase, Traffic, distribution, input_series
from sage_obs.conventions import REQUEST_OVERHEAD
from sage_obs.slo.triggers import TRIGGERS, Trigger
from sage_obs.slo.windows import DRILL, PROFILES, Windows


def values(*phases: Phase, begins: int = 0) -> dict[str, str]:
    """The notation of each series of one instance, by metric, outcome, version and bucket."""
    found = {}
    for series in input_series([Instance("i", begins, phases)], job="j", scrape=10):
        name, labels = series["series"].rstrip("}").split("{")
        told = [part.split("=")[1].strip('"') for part in labels.split(", ") if part.split("=")[0] in {"outcome", "version", "le", "probe"}]
        found[" ".join((name, *told))] = series["values"]
    return found


def test_counters_rise_from_zero_and_go_on() -> None:
    """A second phase of the same process continues where the first ended."""
    found = values(Phase(3, "1", Traffic(requests=10)), Phase(2, "1", Traffic(requests=20)))
    assert found["sage_agent_requests_total success"] == "0+10x2 40+20x1 stale"
    assert found["up"] == "1+0x2 1+0x1 stale"


def test_a_new_process_counts_from_zero_and_says_when_it_started() -> None:
    """Its version is a new series; the old one goes stale at once."""
    found = values(Phase(2, "1", Traffic(requests=10)), Phase(2, "2", Traffic(requests=10), fresh=True), begins=1)
    assert found["sage_agent_requests_total success"] == "_x1 0+10x1 0+10x1 stale"
    assert found["sage_release_timestamp_seconds 1"] == "_x1 10+0x1 stale _x1"
    assert found["sage_release_timestamp_seconds 2"] == "_x3 30+0x1 stale"


def test_a_target_that_does_not_answer_exposes_nothing() -> None:
    """Only `up` remains, at 0, and what comes back starts anew."""
    found = values(Phase(2, "1"), Phase(3, "1", up=False), Phase(1, "1", fresh=True))
    assert found["up"] == "1+0x1 0+0x2 1+0x0 stale"
    assert found["sage_agent_health_status readiness"] == "1+0x1 stale _x2 1+0x0 stale"


@given(st.floats(min_value=0.0011, max_value=3.5))
def test_buckets_have_the_quantile_that_was_asked_for(p95: float) -> None:
    """Interpolating as Prometheus does gives the percentile back, where two buckets can make it."""
    try:
        (lower, below), (upper, whole), (_, total) = distribution(REQUEST_OVERHEAD.buckets, p95)
    except ValueError:
        reject()
    assert whole == total == 1.0
    position = (0.95 - below) / (1 - below)
    assert math.isclose(float(lower) + (float(upper) - float(lower)) * position, p95, rel_tol=1e-6)


def test_a_percentile_too_close_to_a_bound_is_refused() -> None:
    """Rather than tested wrongly."""
    with pytest.raises(ValueError, match=r"0\.1 s"):
        distribution(REQUEST_OVERHEAD.buckets, 0.1)


@pytest.mark.parametrize("windows", PROFILES.values(), ids=list(PROFILES))
@pytest.mark.parametrize("one", TRIGGERS, ids=lambda one: one.slug)
def test_every_trigger_is_seen_to_fire_and_to_stay_silent(one: Trigger, windows: Windows) -> None:
    """Scenarios of both kinds, each a job of its own, all within the time in which a release is new."""
    scenarios = list(of_trigger(one, Bench(windows)))
    assert {bool(scenario.firing) for scenario in scenarios} == {True, False}
    assert len({scenario.name for scenario in scenarios}) == len(scenarios)
    known = Bench(windows).begins + Bench(windows).novelty
    assert all(firing.trigger is one and firing.begins < known for scenario in scenarios for firing in scenario.firing)


def test_every_alert_is_asked_for_at_every_tick() -> None:
    """The set of firing alerts is exact: those that must not fire are asked for too."""
    rules = groups(DRILL, links=Links())
    files = promtool_files(rules, DRILL)
    for name in (*(one.slug for one in TRIGGERS), RELEASES):
        [test] = files[name]["tests"]
        asked: dict[str, set[str]] = {}
        for one in test["alert_rule_test"]:
            asked.setdefault(one["eval_time"], set()).add(one["alertname"])
        assert set(map(frozenset, asked.values())) == {frozenset(trigger.alert for trigger in TRIGGERS)}, name


def test_releases_are_tried_in_every_way_they_come_and_go() -> None:
    """Replaced by a bad and a good one, crashed, not answering, taken away, no longer new."""
    assert [scenario.name for scenario in of_releases(Bench(DRILL))] == [
        "restarted-with-a-bad-release",
        "restarted-with-a-good-release",
        "restarted-with-the-same-release",
        "target-does-not-answer",
        "target-taken-away",
        "no-longer-new",
    ]
